"""The agent's own loop: see what runs, decide, act. It alone touches the processes and the book.

Everything slow (probing engines, reading devices, reporting) happens in other threads, whose latest results it reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from workers import processes
from workers.acting import Hands, Waits
from workers.book import Book, Ended, HeldSpec, Record, clock
from workers.contract import NodeSpec, Phase
from workers.engines import Engine
from workers.logs import OWN, Logs
from workers.probes import Probe, Prober, seen_draining
from workers.processes import Children, Marked
from workers.qualification import Qualification
from workers.qualifying import Qualifier, busy
from workers.reconcile import Action, PutAway, Relabel, Start, Wait, Wake, reconcile
from workers.sleepers import Sleepers
from workers.sockets import Sockets
from workers.starter import Starter
from workers.strays import Strays
from workers.view import View

log = logging.getLogger(__name__)
PERIOD_S = 1.0
SOON_S = 0.1  # while something is about to happen: an engine is starting, draining or stopping
ENDING_S = 0.03  # while one ends whose devices another waits for
ENDS_WITHIN_S = 3.0  # one that takes longer is waited for with less haste
_CHANGING = {Phase.STARTING, Phase.DRAINING, Phase.STOPPING, Phase.DOZING, Phase.WAKING}


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
        sleepers: Sleepers | None = None,
        sockets: Sockets | None = None,
        usable: Callable[[], frozenset[str] | None] = lambda: None,
    ) -> None:
        self._instance, self._held, self._book, self._logs = instance, held, book, logs
        self._children, self._engines, self._prober = children, engines, prober
        self._qualifier, self._sleepers, self._usable = qualifier, sleepers, usable
        self._lock = threading.Lock()
        self._wake, self._done = threading.Event(), threading.Event()
        self._paused = self._retiring = False
        self._strays = Strays(instance, self._records, sockets)
        self._hands = Hands(book, starter, self._strays, sleepers, prober.reopen)
        self.finished = threading.Event()  # retired, and nothing runs any more
        self.on_change: Callable[[], None] = lambda: None
        self.view = View(held.generation, tuple(book))
        prober.on_news = self._wake.set

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
            self._wake.wait(self._pause_s())
            self._wake.clear()

    def _pause_s(self) -> float:
        replicas, now = [record.replica for record in self._records()], clock()
        if any(one.phase == Phase.STOPPING and now - one.since < ENDS_WITHIN_S for one in replicas):
            return ENDING_S
        return SOON_S if any(one.phase in _CHANGING for one in replicas) else PERIOD_S

    def adopt(self) -> None:
        """Take over what an earlier agent process left: once, before the first tick."""
        if self._sleepers:
            self._sleepers.adopt()
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
        self._logs.prune([OWN, *(record.log for record in self._records())])

    def tick(self, now: float) -> None:
        before = self.view
        waits: Waits = {}
        qualifications = before.qualifications
        if not self._paused:
            for record in self._book:
                _alone(self._observe, record, now)
            self._see_sleepers(now)
            self._sweep(now)
            spec = self._wanted()
            qualifications = self._qualify(spec, now)
            for action in self._decide(spec, now):
                _alone(self._hands.act, action, now, waits)
            self._prober.keep_only(self._records())
        sleep = self._sleepers.report(now) if self._sleepers else None
        self.view = View(self._held.generation, tuple(self._book), waits, now, qualifications, sleep)
        if self._retiring and not len(self._records()):
            self.finished.set()
        if before.shape() != self.view.shape():
            self.on_change()
            if any(record.replica.phase == Phase.DRAINING for record in self._book):
                self._wake.set()  # it is asked at once whether it is idle

    def _records(self) -> tuple[Record, ...]:
        return (*self._book, *(self._sleepers or ()))

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
        return self._qualifier.tick(spec.qualify, busy(spec, self._records(), self._strays.gpus), now)

    def _decide(self, spec: NodeSpec | None, now: float) -> list[Action]:
        if spec is None:
            return []  # nothing is known of what is wanted: an adopted engine must not be stopped for that
        held = self._strays.gpus | self._qualifier.held()
        asleep = self._sleepers.asleep() if self._sleepers else {}
        short = self._sleepers.short(spec) if self._sleepers else frozenset()
        actual = self._book.replicas()
        return reconcile(spec, actual, now, usable=self._usable(), held=held, asleep=asleep, short=short)

    # --- observe -----------------------------------------------------------------------------------------

    def _see_sleepers(self, now: float) -> None:
        if self._sleepers is None:
            return
        self._sleepers.observe(now)
        for record in self._sleepers:
            if engine := self._engines.get(record.replica.spec.engine):
                self._prober.ask(record, engine)

    def _observe(self, record: Record, now: float) -> None:
        if record.replica.phase == Phase.EXITED:
            return
        if record.process is None or not processes.is_alive(record.process):
            self._ended(record, now)
            return
        if self._sleepers and record.replica.phase in (Phase.DOZING, Phase.WAKING):
            self._turn(self._sleepers, record, now)
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

    def _turn(self, sleepers: Sleepers, record: Record, now: float) -> None:
        if why := sleepers.turn(record, now):
            log.warning("%s: %s failed, it is stopped: %s", record.replica.spec.name, record.replica.phase, why)
            self._hands.stop(record.partition, False, now)

    def _learn(self, record: Record, probe: Probe, now: float) -> None:
        replica = record.replica
        if replica.phase == Phase.STARTING and probe.ready:
            took_s = now - record.started
            log.info("%s is %s after %.1f s", replica.spec.name, "awake" if replica.woken else "ready", took_s)
            ready = replace(replica, phase=Phase.READY, since=now, woken=False)
            took = {"woken_after_s": took_s} if replica.woken else {"ready_after_s": took_s}
            self._book.put(msgspec.structs.replace(record, replica=ready, **took))
        elif replica.phase == Phase.DRAINING:
            self._hands.put(record, seen_draining(replica, probe, now))

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
        if self._sleepers:
            self._sleepers.left(record)

    def secrets(self) -> set[str]:
        """What must not leave this node in a log."""
        spec = self._held.spec
        held = (*spec.replicas, *spec.sleepers) if spec else ()
        records = self._records()
        keys = {spec.api_key for spec in (*held, *(r.replica.spec for r in records)) if spec.api_key}
        return keys | {record.secret for record in records if record.secret} | self._logs.hidden

    def _sweep(self, now: float) -> None:
        self._logs.of(OWN).mark(now)
        if self._strays.is_due(now):
            self._logs.of(OWN).rotate()
            self._strays.sweep(now)

    def _adopt_unwritten(self, record: Record, stray: Marked | None) -> None:
        """The last agent died between deciding to start this engine and writing down its pid."""
        if stray is not None:
            process = processes.Process(stray.pid, processes.born(stray.pid), processes.boot_id())
            self._book.put(msgspec.structs.replace(record, process=process))
        else:
            self._hands.put(record, replace(record.replica, phase=Phase.EXITED, asked=True))


def _alone(step: Callable[..., None], subject: Record | Action, *arguments: object) -> None:
    """One replica's trouble, such as a full disk or a hostile model, must not hold up the others."""
    try:
        step(subject, *arguments)
    except Exception:
        log.exception("partition %s: %s failed; the next tick tries again", _whose(subject), step.__name__)


def _whose(subject: Record | Action) -> object:
    if isinstance(subject, PutAway):
        return subject.marker
    return subject.spec.partition if isinstance(subject, Start | Relabel | Wait | Wake) else subject.partition


def _leads(stray: Marked) -> bool:
    return processes.session_of(stray.pid) == stray.pid
