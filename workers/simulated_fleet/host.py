"""One simulated node: the spec it holds, the processes it makes believe, and the report it sends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from uuid import uuid4

from workers import __version__
from workers.contract import (
    DeviceSample,
    EngineSample,
    Exit,
    HostSample,
    LogChunk,
    LogWanted,
    NodeReport,
    NodeSpec,
    Phase,
    ReplicaSpec,
    ReplicaStatus,
    ReportReply,
)
from workers.reconcile import Drain, Forget, Relabel, Replica, Start, Steady, Stop, Wait, reconcile
from workers.simulated_fleet import load
from workers.simulated_fleet.devices import GIB, Devices, memory_of, uuid_of
from workers.simulated_fleet.faults import Fault
from workers.simulated_fleet.serving import Served

READY_AFTER_S = (6.0, 14.0)
STOP_S, CRASH_AFTER_S = 1.0, 2.0
HISTOGRAMS_EVERY = 10  # reports
OLD_VERSION, WELL = "0.0.1", load.Ills()
LOG = "This engine is simulated: it serves nothing and writes no log.\n"


@dataclass(frozen=True, slots=True)
class Curve:
    """What is asked of the engines."""

    shape: str = "day"
    seed: int = 0
    day_s: float = load.DAY_S
    ready_after_s: tuple[float, float] = READY_AFTER_S


@dataclass(slots=True)
class Process:
    """What is known of one replica beyond what `reconcile` needs."""

    pid: int
    engine: load.Engine
    ready_s: float  # from its start
    ready_after_s: float | None = None
    exit_code: int | None = None


@dataclass
class Host:
    node: int
    name: str
    gpus: int
    curve: Curve
    instance: str = field(default_factory=lambda: uuid4().hex)
    faults: frozenset[Fault] = frozenset()
    spec: NodeSpec | None = None
    period_s: float = 1.0
    endpoint: str = ""  # of whatever answers for the engines; none does

    def __post_init__(self) -> None:
        self._random = Random(f"{self.curve.seed}/{self.name}")  # noqa: S311
        self._seq, self._boot = time.time_ns() // 1_000_000, uuid4().hex
        self._replicas: dict[int, Replica] = {}
        self._processes: dict[int, Process] = {}
        self._waiting: dict[int, str] = {}
        self._logs: tuple[LogWanted, ...] = ()
        self._last, self._pid, self._reports = 0.0, 1000, self._random.randrange(HISTOGRAMS_EVERY)
        self._devices = Devices(self.name, self.gpus)

    @property
    def is_silent(self) -> bool:
        return bool(self._parts("silence"))

    def restart(self) -> None:
        self._boot = uuid4().hex  # the agent begins anew and adopts what runs

    def hold(self, spec: NodeSpec) -> bool:
        """Whether it is newer than the one held, and held from now on."""
        if is_newer := self.spec is None or spec.generation > self.spec.generation:
            self.spec = spec
        return is_newer

    def take(self, reply: ReportReply) -> None:
        """What a report was answered with."""
        if reply.spec is not None:
            self.hold(reply.spec)
        self.period_s = reply.period_s or self.period_s
        self._logs = reply.logs

    def serving(self) -> Iterator[tuple[str, Served]]:
        """The engines that answer requests, by their keys."""
        for partition, replica in self._replicas.items():
            if replica.phase in (Phase.READY, Phase.DRAINING) and replica.spec.api_key:
                yield replica.spec.api_key, Served(replica.spec.deployment, self._processes[partition].engine)

    def report(self, at: float) -> NodeReport:
        """What is so at a moment (unix s); time goes on to it, whatever the fault."""
        elapsed_s = min(at - self._last, 60.0) if self._last else 0.0
        self._last, self._seq, self._reports = at, self._seq + 1, self._reports + 1
        self._live(at, elapsed_s)
        self._act(at)
        skew = next((fault.value for fault in self.faults if fault.kind == "skew"), 0.0)
        report = NodeReport(
            node=self.node,
            instance=self.instance,
            boot=self._boot,
            seq=self._seq,
            at=at + skew,
            generation=self.spec.generation if self.spec else 0,
            period_s=self.period_s,
            agent_version=OLD_VERSION if self._parts("old-version") else __version__,
            engine_version="simulated",
            driver=f"{self.gpus} simulated devices",
            simulated=True,
            devices=self._devices.all,
            samples=self._samples(elapsed_s),
            host=self._host(),
            replicas=tuple(self._statuses(at)),
            logs=tuple(self._chunks()),
        )
        self._logs = ()
        return report

    # --- processes -----------------------------------------------------------------------------------------

    def _act(self, at: float) -> None:
        if self.spec is None:
            return
        self._waiting = {}
        usable = set(self._devices.uuids) - {uuid_of(self.name, part) for part in self._parts("lose")}
        for action in reconcile(self.spec, self._replicas, at, usable=usable):
            match action:
                case Start(spec, restarts):
                    self._start(spec, restarts, at)
                case Relabel(spec):
                    self._relabel(spec, at)
                case Drain(partition, _):
                    self._enter(partition, Phase.DRAINING, at)
                case Stop(partition):
                    self._enter(partition, Phase.STOPPING, at)
                case Steady(partition):
                    self._replicas[partition] = replace(self._replicas[partition], restarts=0)
                case Forget(partition):
                    del self._replicas[partition], self._processes[partition]
                case Wait(spec, reason):
                    self._waiting[spec.partition] = reason

    def _start(self, spec: ReplicaSpec, restarts: int, at: float) -> None:
        self._pid += 1
        ready_s = self._random.uniform(*self.curve.ready_after_s)
        self._processes[spec.partition] = Process(self._pid, load.Engine(spec.role, self._random), ready_s)
        self._replicas[spec.partition] = Replica(spec, Phase.STARTING, at, restarts=restarts)

    def _relabel(self, spec: ReplicaSpec, at: float) -> None:
        was = self._replicas[spec.partition]
        ends_drain = was.phase == Phase.DRAINING
        phase, since = (Phase.READY, at) if ends_drain else (was.phase, was.since)
        self._replicas[spec.partition] = replace(was, spec=spec, phase=phase, since=since, idle_since=None)
        self._processes[spec.partition].engine.role = spec.role

    def _enter(self, partition: int, phase: Phase, at: float) -> None:
        was = self._replicas[partition]
        self._replicas[partition] = replace(was, phase=phase, since=at, asked=was.asked or phase == Phase.STOPPING)

    def _live(self, at: float, elapsed_s: float) -> None:
        """What processes do by themselves."""
        for partition, replica in list(self._replicas.items()):
            process, age = self._processes[partition], at - replica.since
            match replica.phase:
                case Phase.STARTING | Phase.READY if self._is_crashing(replica) and age >= CRASH_AFTER_S:
                    process.exit_code, process.engine.is_dead = 1, True
                    self._replicas[partition] = replace(replica, phase=Phase.EXITED, since=at, asked=False)
                case Phase.STARTING if age >= process.ready_s:
                    process.ready_after_s = round(age, 2)
                    self._enter(partition, Phase.READY, at)
                case Phase.READY:
                    self._serve(replica, process, at, elapsed_s)
                case Phase.DRAINING if process.engine.in_flight:  # maybe one more has come, as to any engine
                    self._replicas[partition] = replace(replica, idle_since=None)
                case Phase.DRAINING:
                    process.engine.live(0.0, elapsed_s)
                    self._replicas[partition] = replace(replica, idle_since=replica.idle_since or at, idle_seen=at)
                case Phase.STOPPING if age >= STOP_S:
                    process.exit_code = 0
                    self._enter(partition, Phase.EXITED, at)

    def _serve(self, replica: Replica, process: Process, at: float, elapsed_s: float) -> None:
        spec, curve = replica.spec, self.curve
        asked = load.demand(curve.shape, spec.deployment, at, seed=curve.seed, day_s=curve.day_s)
        process.engine.ills = self._ills(spec.name)
        process.engine.live(asked, elapsed_s)

    def _ills(self, partition: str) -> load.Ills:
        if not self.faults:
            return WELL
        on_it = {fault.kind: fault.value for fault in self.faults if fault.part == partition}
        return load.Ills(
            kv_full="kv-full" in on_it,
            expires="expire-kv" in on_it,
            fails="fail-kv" in on_it,
            first_s=on_it.get("slow-first", 0.0),
            token_s=on_it.get("slow-tokens", 0.0),
        )

    def _is_crashing(self, replica: Replica) -> bool:
        return replica.spec.name in self._parts("crash-loop")

    def _parts(self, kind: str) -> set[str]:
        return {fault.part for fault in self.faults if fault.kind == kind} if self.faults else set()

    # --- what is told --------------------------------------------------------------------------------------

    def _statuses(self, at: float) -> list[ReplicaStatus]:
        told = [self._status(replica, at) for replica in self._replicas.values()]
        held = self.spec.replicas if self.spec else ()
        for spec in held:
            if spec.partition in self._waiting and spec.partition not in self._replicas:
                told.append(self._unstarted(spec))
        return told

    def _status(self, replica: Replica, at: float) -> ReplicaStatus:
        spec, process = replica.spec, self._processes[replica.spec.partition]
        alive = replica.phase != Phase.EXITED
        last_exit = None
        if not alive:
            tail = "" if replica.asked else "simulated crash: the fault crash-loop is on this partition\n"
            last_exit = Exit(code=process.exit_code, ago_s=round(at - replica.since, 1), log_tail=tail)
        return ReplicaStatus(
            partition=spec.partition,
            deployment=spec.deployment,
            role=spec.role,
            generation=spec.generation,
            phase=replica.phase,
            phase_age_s=round(at - replica.since, 1),
            pid=process.pid if alive else 0,
            endpoint=self.endpoint if alive else "",
            restarts=replica.restarts,
            ready_after_s=process.ready_after_s,
            memory_bytes=memory_of(process.engine) * len(spec.gpus) if alive else None,
            engine_version="simulated",
            message=self._waiting.get(spec.partition, ""),
            last_exit=last_exit,
            sample=self._sample(process) if replica.phase in (Phase.READY, Phase.DRAINING) else None,
        )

    def _unstarted(self, spec: ReplicaSpec) -> ReplicaStatus:
        return ReplicaStatus(
            partition=spec.partition,
            deployment=spec.deployment,
            role=spec.role,
            generation=spec.generation,
            phase=Phase.EXITED,
            message=self._waiting[spec.partition],
        )

    def _sample(self, process: Process) -> EngineSample:
        return process.engine.sample(whole=self._reports % HISTOGRAMS_EVERY == 0)

    def _samples(self, elapsed_s: float) -> tuple[DeviceSample, ...]:
        engines = {
            uuid: self._processes[partition].engine
            for partition, replica in self._replicas.items()
            if replica.phase != Phase.EXITED
            for uuid in replica.spec.gpus
        }
        ills: dict[str, set[str]] = {}
        for fault in self.faults:
            ills.setdefault(fault.part, set()).add(fault.kind)
        return self._devices.samples(engines, ills, elapsed_s)

    def _host(self) -> HostSample:
        busy = 0.05 * sum(process.engine.busy for process in self._processes.values())
        return HostSample(
            cpu_utilization=round(min(1.0, 0.04 + busy), 3),
            cpu_count=96,
            memory_bytes=1024 * GIB,
            memory_used_bytes=(60 + 24 * len(self._processes)) * GIB,
            disk_free_bytes=(12 if self._parts("disk-low") else 2400) * GIB,
        )

    def _chunks(self) -> list[LogChunk]:
        chunks = []
        for want in self._logs:
            offset = min(max(want.offset, 0), len(LOG))
            if want.id or offset < len(LOG):
                text = LOG[offset:][: want.limit or None]
                chunks.append(LogChunk(partition=want.partition, offset=offset, text=text, id=want.id, end=len(LOG)))
        return chunks
