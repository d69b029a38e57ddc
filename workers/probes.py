"""Asks running engines how they are, in threads of its own: an engine that hangs must not hold up the agent."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx

from workers.book import Record, clock
from workers.contract import EngineSample, Phase
from workers.engines import Engine, door
from workers.processes import Process
from workers.reconcile import Replica, may_shut

log = logging.getLogger(__name__)
THREADS = 16
# Between two probes of an engine: of a ready one; of one that is changing, whose figures cost it a few milliseconds;
# and of one that starts, which refuses until it is ready.
EVERY_S, SOON_S, STARTING_S = 0.9, 0.15, 0.08


@dataclass(frozen=True, slots=True)
class Probe:
    """The latest answer of one process. `begun` is when it was asked; `quiet_since`: when it was first seen without a
    request or a KV block in use, and with as many ended as now. None: it has one, or does not tell."""

    begun: float
    ready: bool = False
    sample: EngineSample | None = None
    answered: float | None = None  # when it last answered at all
    quiet_since: float | None = None
    shut_until: float | None = None  # it lets nobody in until then; nobody was inside

    @property
    def is_idle(self) -> bool:
        """No request runs or waits; False when that is not known."""
        return self.sample is not None and self.sample.running == 0 and self.sample.waiting == 0


def _every(phase: Phase) -> float:
    if phase in (Phase.READY, Phase.ASLEEP):
        return EVERY_S
    return STARTING_S if phase == Phase.STARTING else SOON_S


def _is_new(record: Record, last: Probe) -> bool:
    """It has just begun to drain: whoever waits for its devices waits for the answer to this."""
    return record.replica.phase == Phase.DRAINING and last.begun < record.replica.since


def idle_since(replica: Replica, probe: Probe, now: float) -> float | None:
    """Since when it has had no request: where the engine counts them also from before it drained, else from the first
    probe without one."""
    if not probe.is_idle:
        return None
    if probe.quiet_since is None:
        return replica.idle_since or now
    return max(replica.idle_since or probe.quiet_since, probe.quiet_since)


def seen_draining(replica: Replica, probe: Probe, now: float) -> Replica:
    """As it is after that answer. Its door counts as shut only where nothing can reach into its cache either."""
    since = idle_since(replica, probe, now)
    seen = probe.begun if since is not None else replica.idle_seen
    shut = probe.shut_until if probe.quiet_since is not None else None
    return replace(replica, idle_since=since, idle_seen=seen, shut_until=shut)


class Prober:
    def __init__(self, host: str, client: httpx.Client | None = None) -> None:
        """`host` is where this node's engines are reached from the node itself."""
        self._host = host
        # trust_env off: a proxy of the environment must not see the engines' keys.
        self._client = client or httpx.Client(
            trust_env=False, limits=httpx.Limits(max_connections=THREADS * 2, max_keepalive_connections=THREADS)
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")
        self._lock = threading.Lock()
        self._latest: dict[Process, Probe] = {}
        self._asking: set[Process] = set()
        self._reopened: dict[Process, float] = {}  # when a drain was last taken back
        self._opening: set[Process] = set()  # doors that were to be opened, and have not said that they are
        self.on_news: Callable[[], None] = lambda: None  # a process has become ready, or idle, or ceased to be

    def ask(self, record: Record, engine: Engine) -> None:
        """Begins a probe, unless one of that process is under way or was just made."""
        process = record.process
        every = _every(record.replica.phase)
        with self._lock:
            if process is None or process in self._asking:
                return
            if (last := self._latest.get(process)) and clock() - last.begun < every and not _is_new(record, last):
                return
            self._asking.add(process)
        self._pool.submit(self._probe, process, record, engine)

    def latest(self, record: Record) -> Probe | None:
        with self._lock:
            return self._latest.get(record.process) if record.process else None

    def keep_only(self, records: Iterable[Record]) -> None:
        """Forgets the processes that no record names any more."""
        living = {record.process for record in records}
        with self._lock:
            self._latest = {process: probe for process, probe in self._latest.items() if process in living}
            self._reopened = {process: at for process, at in self._reopened.items() if process in living}
            self._opening &= living

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _probe(self, process: Process, record: Record, engine: Engine) -> None:
        begun = clock()
        try:
            self._open_if_lost(process, record)
            shut_until = self._shut(record)
            probe = replace(self._ask(record, engine, begun), shut_until=shut_until)
        except Exception:
            log.exception("probing %s", record.replica.spec.name)
            probe = Probe(begun)
        with self._lock:
            self._asking.discard(process)
            before = self._latest.get(process)
            if probe.answered is None and before is not None:
                probe = Probe(begun, answered=before.answered)
            self._latest[process] = replace(probe, quiet_since=_quiet_since(probe, before, clock()))
        was = before or Probe(begun)
        draining = record.replica.phase == Phase.DRAINING and probe.is_idle  # the agent waits for just that
        if draining or (probe.ready, probe.is_idle) != (was.ready, was.is_idle):
            self.on_news()

    def reopen(self, record: Record) -> None:
        """Its drain was taken back, or it wakes. Where a probe under way shuts it once more, that opens it."""
        if record.secret and record.process is not None:
            with self._lock:
                self._reopened[record.process] = clock()
                self._opening.add(record.process)
            self._pool.submit(self._open, record.process, record)

    def _open(self, process: Process, record: Record) -> None:
        """One that does not answer may yet open, while it is to go again: its door is not counted on until it does."""
        if door.open_again(self._client, record.url(self._host), record.secret):
            with self._lock:
                self._opening.discard(process)

    def _open_if_lost(self, process: Process, record: Record) -> None:
        """An opening that was not answered is asked for again while the engine stays: else it could never be shut."""
        with self._lock:
            is_lost = process in self._opening
        if is_lost and record.replica.phase != Phase.DRAINING:
            self._open(process, record)

    def _may_shut(self, process: Process, since: float) -> bool:
        """Whether the drain that began then still holds, and no opening of before is under way."""
        with self._lock:
            return process not in self._opening and self._reopened.get(process, -math.inf) < since

    def _shut(self, record: Record) -> float | None:
        """Before it is asked whether it is idle: what it then tells holds as long as its door is shut."""
        before, replica = self.latest(record), record.replica
        if replica.phase != Phase.DRAINING or not record.secret or before is None or before.quiet_since is None:
            return None
        begun, process = clock(), record.process
        if process is None or not self._may_shut(process, replica.since):
            return None
        if not may_shut(replica, before.quiet_since, begun):
            return None
        found = door.shut(self._client, record.url(self._host), record.secret)
        if not self._may_shut(process, replica.since):  # taken back meanwhile, and perhaps opened before it was shut
            self._open(process, record)
            return None
        return begun + found.shut_s if found is not None and not found.inside else None

    def _ask(self, record: Record, engine: Engine, begun: float) -> Probe:
        url, spec = record.url(self._host), record.replica.spec
        if record.replica.phase == Phase.STARTING:
            ready = engine.is_ready(self._client, url, spec)
            return Probe(begun, ready=ready, answered=clock() if ready else None)
        sample = engine.sample(self._client, url)
        return Probe(begun, ready=sample is not None, sample=sample, answered=clock() if sample else None)


def _quiet_since(probe: Probe, before: Probe | None, now: float) -> float | None:
    """Between two probes a request may come and end: the counters tell. And blocks that a decode engine has yet to pull
    are kept in use, for as long as it renews their lease."""
    if not probe.is_idle or (ended := _ended(probe)) is None or probe.sample is None or probe.sample.kv_usage != 0.0:
        return None
    if before is not None and before.quiet_since is not None and _ended(before) == ended:
        return before.quiet_since
    return now


def _ended(probe: Probe) -> tuple[float, float | None] | None:
    """What moves with each request that ends; None where the engine does not tell it."""
    sample = probe.sample
    if sample is None or sample.requests_total is None:
        return None
    return sample.requests_total, sample.prompt_tokens_total
