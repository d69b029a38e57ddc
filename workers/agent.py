"""The agent's own loop: see what runs, decide, act. It alone touches the processes and the book.

Everything slow (probing engines, reading devices, reporting) happens in other threads, whose latest results it reads.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from workers import processes
from workers.book import Book, Ended, HeldSpec, Record, clock
from workers.contract import NodeSpec, Phase, ReplicaSpec, Role
from workers.engines import Engine
from workers.logs import OWN, Logs
from workers.probes import Probe, Prober
from workers.processes import Children, Marked
from workers.qualification import Qualification
from workers.qualifying import Qualifier, busy
from workers.reconcile import Action, Drain, Forget, Relabel, Start, Steady, Stop, Wait, reconcile
from workers.starter import Starter
from workers.strays import Strays
from workers.view import View

log = logging.getLogger(__name__)
PERIOD_S = 1.0
SOON_S = 0.2  # while something is about to happen: an engine is starting, draining or stopping
_CHANGING = {Phase.STARTING, Phase.DRAINING, Phase.STOPPING}


class Agent:
    def __init__(
        self,
        *,
        instance: str,
        held: HeldSpec,
        book: Book,
        logs: Logs,
        children: Children,
        engines: Mapping[str, Engine],
        starter: Starter,
        prober: Prober,
        qualifier: Qualifier,
        usable: Callable[[], frozenset[str] | None] = lambda: None,
    ) -> None:
        self._instance, self._held, self._book, self._logs = instance, held, book, logs
        self._children, self._engines, self._starter, self._prober = children, engines, starter, prober
        self._qualifier, self._usable = qualifier, usable
        self._lock = threading.Lock()
        self._wake, self._done = threading.Event(), threading.Event()
        self._paused = self._retiring = False
        self._strays = Strays(instance, book)
        self.finished = threading.Event()  # retired, and nothing runs any more
        self.on_change: Callable[[], None] = lambda: None
        self.view = View(held.generation, tuple(book))

    # --- from other threads ------------------------------------------------------------------------------

    def submit(self, spec: NodeSpec) -> bool:
        """Take `spec` if it is newer than the one held. Idempotent; does not wait for anything to be done."""
        with self._lock:
            taken = self._held.take(spec)
        if taken:
            log.info("generation %d: %d replicas", spec.generation, len(spec.replicas))
            self._wake.set()
        return taken

    def pause(self, paused: bool) -> None:
        """Paused, it touches no process: somebody else may be acting for this node."""
        if paused != self._paused:
            log.warning("paused: leaving the engines alone" if paused else "acting again")
        self._paused = paused

    def retire(self) -> None:
        """Drain and stop every engine, whatever the spec says; `finished` is set when it is done."""
        if not self._retiring:
            log.warning("retiring: draining and stopping all engines")
        self._retiring = True
        self._wake.set()

    def stop(self) -> None:
        """End the loop. The engines go on; the next agent process adopts them."""
        self._done.set()
        self._wake.set()

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self.tick(clock())
            except Exception:
                log.exception("tick failed; the next one starts afresh")
            soon = any(record.replica.phase in _CHANGING for record in self._book)
            self._wake.wait(SOON_S if soon else PERIOD_S)
            self._wake.clear()

    def adopt(self) -> None:
        """Take over what an earlier agent process left: once, before the first tick."""
        strays = {stray.marker: stray for stray in processes.marked(self._instance) if _leads(stray)}
        for record in self._book:
            if record.replica.phase == Phase.EXITED:
                continue
            if record.process is None:
                self._adopt_unwritten(record, strays.get(record.its_marker()))
            elif processes.is_alive(record.process):
                log.info("adopted %s: pid %d", record.replica.spec.name, record.process.pid)
        for record in self._book:
            self._observe(record, clock())  # what died meanwhile must not be reported as ready
        self.view = View(self._held.generation, tuple(self._book), {}, clock())
        self._logs.prune([OWN, *(record.log for record in self._book)])

    def tick(self, now: float) -> None:
        before = self.view
        waits: dict[int, tuple[ReplicaSpec, str]] = {}
        qualifications = before.qualifications
        if not self._paused:
            for record in self._book:
                _alone(self._observe, record, now)
            self._sweep(now)
            spec = self._wanted()
            qualifications = self._qualify(spec, now)
            for action in self._decide(spec, now):
                _alone(self._act, action, now, waits)
            self._prober.keep_only(self._book)
        self.view = View(self._held.generation, tuple(self._book), waits, now, qualifications)
        if self._retiring and not len(self._book):
            self.finished.set()
        if before.shape() != self.view.shape():
            self.on_change()

    def _wanted(self) -> NodeSpec | None:
        with self._lock:
            spec = self._held.spec
        if self._retiring:
            return NodeSpec(node=spec.node if spec else 0, generation=self._held.generation)
        return spec

    def _qualify(self, spec: NodeSpec | None, now: float) -> tuple[Qualification, ...]:
        """Before anything is started: a measurement makes way for an engine at once."""
        if spec is None:
            return ()
        return self._qualifier.tick(spec.qualify, busy(spec, self._book, self._strays.gpus), now)

    def _decide(self, spec: NodeSpec | None, now: float) -> list[Action]:
        if spec is None:
            return []  # nothing is known of what is wanted: an adopted engine must not be stopped for that
        held = self._strays.gpus | self._qualifier.held()
        return reconcile(spec, self._book.replicas(), now, usable=self._usable(), held=held)

    # --- observe -----------------------------------------------------------------------------------------

    def _observe(self, record: Record, now: float) -> None:
        if record.replica.phase == Phase.EXITED:
            return
        if record.process is None or not processes.is_alive(record.process):
            self._ended(record, now)
            return
        probe, replica = self._prober.latest(record), record.replica
        if probe is not None and probe.begun >= replica.since:  # an answer from before says nothing of this phase
            self._learn(record, probe, now)
        current = self._book.get(record.partition)
        if current and (engine := self._engines.get(replica.spec.engine)):
            self._prober.ask(current, engine)
        file = self._logs.of(record.log)
        file.mark(now)
        file.rotate()  # last: when it fails all the rest is done

    def _learn(self, record: Record, probe: Probe, now: float) -> None:
        replica = record.replica
        if replica.phase == Phase.STARTING and probe.ready:
            log.info("%s is ready after %.1f s", replica.spec.name, now - record.started)
            ready = replace(replica, phase=Phase.READY, since=now)
            self._book.put(msgspec.structs.replace(record, replica=ready, ready_after_s=now - record.started))
        elif replica.phase == Phase.DRAINING:
            idle_since = (replica.idle_since or now) if probe.is_idle else None
            self._put(record, replace(replica, idle_since=idle_since))

    def _ended(self, record: Record, now: float) -> None:
        """An engine has ended only when all of its processes have: any of them may still hold the device."""
        process = record.process
        code = self._children.exit_code(process.pid) if process else None
        if process and (left := processes.members(process, record.its_marker())):
            processes.kill(left)
            return
        tail = self._logs.of(record.log).last_lines(record.log_start, self.secrets())
        replica = replace(record.replica, phase=Phase.EXITED, since=now)
        message = "" if replica.asked else processes.how_it_ended(code)
        log.log(logging.INFO if replica.asked else logging.WARNING, "%s ended: %s", replica.spec.name, message or code)
        self._book.put(
            msgspec.structs.replace(
                record, replica=replica, ended=Ended(code=code, at=now, log_tail=tail), message=message
            )
        )
        if process:
            self._children.forget(process.pid)

    def secrets(self) -> set[str]:
        """What must not leave this node in a log."""
        held = self._held.spec.replicas if self._held.spec else ()
        keys = {spec.api_key for spec in (*held, *(r.replica.spec for r in self._book)) if spec.api_key}
        return keys | self._logs.hidden

    def _sweep(self, now: float, force: bool = False) -> None:
        self._logs.of(OWN).mark(now)
        if force or self._strays.is_due(now):
            self._logs.of(OWN).rotate()
            self._strays.sweep(now)

    def _adopt_unwritten(self, record: Record, stray: Marked | None) -> None:
        """The last agent died between deciding to start this engine and writing down its pid."""
        if stray is not None:
            process = processes.Process(stray.pid, processes.born(stray.pid), processes.boot_id())
            self._book.put(msgspec.structs.replace(record, process=process))
        else:
            self._put(record, replace(record.replica, phase=Phase.EXITED, asked=True))

    # --- act ---------------------------------------------------------------------------------------------

    def _act(self, action: Action, now: float, waits: dict[int, tuple[ReplicaSpec, str]]) -> None:
        match action:
            case Start():
                self._start(action, now, waits)
            case Wait(spec, reason):
                waits[spec.partition] = (spec, reason)
            case Relabel(spec):
                self._relabel(spec, now)
            case Drain(partition):
                self._change(partition, phase=Phase.DRAINING, since=now, idle_since=None)
            case Stop(partition, force):
                self._stop(partition, force, now)
            case Steady(partition):
                self._change(partition, restarts=0)
            case Forget(partition):
                self._book.drop(partition)

    def _start(self, action: Start, now: float, waits: dict[int, tuple[ReplicaSpec, str]]) -> None:
        self._sweep(now, force=True)
        if taken := self._strays.gpus & set(action.spec.gpus):
            waits[action.spec.partition] = (action.spec, f"device {min(taken)} is held by a stray engine")
            return
        if reason := self._starter.not_yet(action.spec):
            waits[action.spec.partition] = (action.spec, reason)
            return
        self._starter.start(action, now)

    def _stop(self, partition: int, force: bool, now: float) -> None:
        record = self._book.get(partition)
        if record is None or record.process is None:
            return
        if force:
            processes.kill(processes.members(record.process, record.its_marker()))
            return
        self._change(partition, phase=Phase.STOPPING, since=now, asked=True)
        if record.replica.idle_since is not None and self._starter.leaves_nothing(record.replica.spec):
            processes.kill(processes.members(record.process, record.its_marker()))
        else:
            processes.signal_leader(record.process, signal.SIGTERM)

    def _relabel(self, spec: ReplicaSpec, now: float) -> None:
        record = self._book.get(spec.partition)
        if record is None:
            return
        replica, was = record.replica, record.replica.spec
        if replica.phase == Phase.DRAINING:
            replica = replace(replica, phase=Phase.READY, since=now, idle_since=None)
        until = replica.prefill_until
        if was.role == Role.PREFILL and spec.role != Role.PREFILL:
            until = now
        if was.role != spec.role:
            log.info("%s: %s -> %s, same process", spec.name, was.role, spec.role)
        self._put(record, replace(replica, spec=spec, prefill_until=until))

    def _change(self, partition: int, **changes: object) -> None:
        if record := self._book.get(partition):
            self._put(record, replace(record.replica, **changes))  # type: ignore[arg-type]

    def _put(self, record: Record, replica: object) -> None:
        self._book.put(msgspec.structs.replace(record, replica=replica))


def _alone(step: Callable[..., None], subject: Record | Action, *arguments: object) -> None:
    """One replica's trouble, such as a full disk or a hostile model, must not hold up the others."""
    try:
        step(subject, *arguments)
    except Exception:
        partition = subject.spec.partition if isinstance(subject, Start | Relabel | Wait) else subject.partition
        log.exception("partition %d: %s failed; the next tick tries again", partition, step.__name__)


def _leads(stray: Marked) -> bool:
    return processes.session_of(stray.pid) == stray.pid
