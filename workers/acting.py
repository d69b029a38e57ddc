"""Does what the reconciler decided: to the processes, and in the book. Called by the agent's loop alone."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import replace

import msgspec

from workers import processes
from workers.book import Book, Record
from workers.contract import Phase, ReplicaSpec, Role
from workers.reconcile import Action, Doze, Drain, Forget, PutAway, Relabel, Start, Steady, Stop, Wait, Wake
from workers.sleepers import Sleepers
from workers.starter import Starter
from workers.strays import Strays

log = logging.getLogger(__name__)
Waits = dict[int, tuple[ReplicaSpec, str]]


class Hands:
    def __init__(
        self,
        book: Book,
        starter: Starter,
        strays: Strays,
        sleepers: Sleepers | None,
        reopen: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """`reopen`: opens the door of an engine that is to stay."""
        self._book, self._starter, self._strays, self._sleepers = book, starter, strays, sleepers
        self._reopen = reopen

    def act(self, action: Action, now: float, waits: Waits) -> None:
        match action:
            case Start():
                self._start(action, now, waits)
            case Wait(spec, reason):
                waits[spec.partition] = (spec, reason)
            case Relabel(spec):
                self._relabel(spec, now)
            case Drain(partition, hurried):
                self.change(
                    partition, phase=Phase.DRAINING, since=now, idle_since=None, shut_until=None, hurried=hurried
                )
            case Stop(partition, force):
                self.stop(partition, force, now)
            case Doze(partition):
                self._doze(partition, now)
            case Steady(partition):
                self.change(partition, restarts=0)
            case Forget(partition):
                self._book.drop(partition)
            case Wake() if self._sleepers:
                self._sleepers.wake(action, now)
            case PutAway(marker, force) if self._sleepers:
                self._sleepers.put_away(marker, force, now)

    def stop(self, partition: int, force: bool, now: float) -> None:
        record = self._book.get(partition)
        if record is None or record.process is None:
            return
        if self._sleepers:
            self._sleepers.left(record)
        if force:
            processes.kill(processes.members(record.process, record.its_marker()))
            return
        self.change(partition, phase=Phase.STOPPING, since=now, asked=True)
        if record.replica.idle_since is not None and self._starter.leaves_nothing(record.replica.spec):
            processes.kill(processes.members(record.process, record.its_marker()))
        else:
            processes.signal_leader(record.process, signal.SIGTERM)

    def change(self, partition: int, **changes: object) -> None:
        if record := self._book.get(partition):
            self.put(record, replace(record.replica, **changes))  # type: ignore[arg-type]

    def put(self, record: Record, replica: object) -> None:
        self._book.put(msgspec.structs.replace(record, replica=replica))

    def _start(self, action: Start, now: float, waits: Waits) -> None:
        self._strays.sweep(now)
        if taken := self._strays.gpus & set(action.spec.gpus):
            waits[action.spec.partition] = (action.spec, f"device {min(taken)} is held by a stray engine")
            return
        if reason := self._starter.not_yet(action.spec):
            waits[action.spec.partition] = (action.spec, reason)
            return
        self._starter.start(action, now)

    def _doze(self, partition: int, now: float) -> None:
        record = self._book.get(partition)
        if record is not None and not (self._sleepers and self._sleepers.doze(record, now)):
            self.stop(partition, False, now)

    def _relabel(self, spec: ReplicaSpec, now: float) -> None:
        record = self._book.get(spec.partition)
        if record is None:
            return
        replica, was = record.replica, record.replica.spec
        if replica.phase == Phase.DRAINING:
            self._reopen(record)
            replica = replace(replica, phase=Phase.READY, since=now, idle_since=None, shut_until=None)
        until = replica.prefill_until
        if was.role == Role.PREFILL and spec.role != Role.PREFILL:
            until = now
        if was.role != spec.role:
            log.info("%s: %s -> %s, same process", spec.name, was.role, spec.role)
        self.put(record, replace(replica, spec=spec, prefill_until=until))
