"""The engines that sleep on this node: who they are, who falls asleep or wakes, and who has to go.

Beside the book, which knows one engine of each partition, the awake one; a process is in one of the two at a time. Like
the book it is touched by the agent's loop alone."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from workers import dormancy, processes
from workers.book import Book, Record, by_marker
from workers.contract import DeviceKind, NodeSpec, Phase, ReplicaSpec
from workers.devices import Source
from workers.dormancy import Host, Sleeper
from workers.probes import Prober
from workers.processes import Children
from workers.reconcile import Replica, Wake
from workers.sampler import Reading
from workers.sleep import MOST_SLEEPERS, SleeperStatus, SleepReport
from workers.turns import Turns

log = logging.getLogger(__name__)
READING_S = 5.0  # so long after it says that it sleeps its GPUs may take to tell
ON_CPU = "engines on CPU slots do not sleep: they start fast, from a process that has vLLM imported"


@dataclass(frozen=True, slots=True)
class Bounds:
    """`cap_bytes`: of host memory, for all that sleep; None: half of it. `rest_bytes`: most that one may keep of a
    GPU."""

    cap_bytes: int | None = None
    rest_bytes: int = dormancy.REST_BYTES


class Sleepers:
    def __init__(
        self,
        folder: Path,
        bounds: Bounds,
        book: Book,
        *,
        source: Source,
        prober: Prober,
        turns: Turns,
        children: Children,
        reading: Callable[[], Reading],
    ) -> None:
        self._beds, self._book = Book(folder, by_marker), book
        self._bounds, self._source, self._prober, self._turns = bounds, source, prober, turns
        self._children, self._reading = children, reading
        self._awake: set[str] = set()  # markers of those that were woken behind our back

    def __iter__(self) -> Iterator[Record]:
        return iter(self._beds)

    def adopt(self) -> None:
        """Take over what an earlier agent process left, which may have died while an engine changed places."""
        awake = {record.marker: record for record in self._book}
        for record in tuple(self._beds):
            other = awake.get(record.marker)
            if other is not None and other.replica.phase == Phase.DOZING:
                self._book.drop(other.partition)  # it was seen asleep
            elif other is not None or record.process is None:
                self._beds.drop(by_marker(record))
        for record in self._beds:
            log.info("%s: adopted a sleeping engine of %s", record.replica.spec.name, record.replica.spec.deployment)

    def why_not(self, gpus: Iterable[str] | None = None) -> str:
        """Why no engine is put to sleep on these devices, or on any of the node's, "" where it may be."""
        kinds = {d.kind for d in self._source.devices() if gpus is None or d.uuid in set(gpus)}
        if not kinds:
            return "no device is known"
        if kinds == {DeviceKind.CPU} or (gpus is not None and DeviceKind.CPU in kinds):
            return ON_CPU
        return "FOREBAY_SLEEP_CAP is 0 on this node" if self._bounds.cap_bytes == 0 else ""

    def may_start_able(self, spec: ReplicaSpec) -> bool:
        """Whether an engine is started so that it can sleep. Not one with a KV connector: other engines reach into its
        cache, whose memory is registered for that and would be gone."""
        return spec.sleeps is not None and not spec.kv_connector and not self.why_not(spec.gpus)

    # --- each tick ---------------------------------------------------------------------------------------

    def observe(self, now: float) -> None:
        """Forget those that ended; note those that are awake though they should not be."""
        for record in tuple(self._beds):
            if record.process is None or not processes.is_alive(record.process):
                self._ended(record)
                continue
            probe = self._prober.latest(record)
            if probe and probe.begun >= record.replica.since and probe.sample and probe.sample.asleep is False:
                log.warning("%s: an engine that should sleep is awake: it is stopped", record.replica.spec.name)
                self._awake.add(record.marker)

    def asleep(self) -> dict[str, Replica]:
        return {record.marker: record.replica for record in self._beds}

    def short(self, spec: NodeSpec) -> frozenset[str]:
        """Markers of those that go, for want of memory or because they are awake."""
        if not len(self._beds):
            return frozenset()
        live = {r.partition for r in self._book if r.replica.phase not in (Phase.EXITED, Phase.DOZING) and r.is_live}
        starting = [one for one in spec.replicas if one.partition not in live]
        memory = {device.uuid: device.memory_bytes for device in self._source.devices()}
        gone = dormancy.without_room(self._sleepers(), self._host(), starting, memory)
        for marker, why in gone.items():
            if (record := self._find(marker)) and record.replica.phase == Phase.ASLEEP:
                log.info(
                    "%s: a sleeping engine of %s is stopped: %s",
                    record.replica.spec.name,
                    record.replica.spec.deployment,
                    why,
                )
        return frozenset(gone) | self._awake

    def turn(self, record: Record, now: float) -> str:
        """How far an engine that falls asleep or wakes is; why it has to be stopped instead, "" where it has not."""
        outcome = self._turns.outcome(record)
        if outcome is None:
            return ""
        if outcome.error:
            return outcome.error
        replica = record.replica
        if replica.phase == Phase.WAKING:
            self._turns.forget(record)
            self._book.put(
                msgspec.structs.replace(record, replica=replace(replica, phase=Phase.STARTING, since=now), level=0)
            )
            return ""
        if any(bed.replica.phase == Phase.STOPPING and set(bed.rests) & set(replica.spec.gpus) for bed in self._beds):
            return ""  # whose memory is whose is told once they are gone
        reading, others = self._reading(), self._held_of(replica.spec.gpus)
        if reading.at > outcome.at:
            used = {sample.uuid: sample.memory_used_bytes for sample in reading.samples}
            why = dormancy.is_rest(others, used, self._bounds.rest_bytes)
            if not why:
                self._lie_down(record, {u: max(0, (used[u] or 0) - others[u]) for u in others}, now)
                return ""
        else:
            why = "its devices are not read"
        return why if now - outcome.at > READING_S else ""

    # --- acts --------------------------------------------------------------------------------------------

    def doze(self, record: Record, now: float) -> bool:
        """Have it fall asleep, if there is room for it. From then on it counts for its room, asleep or not yet."""
        spec = record.replica.spec
        dozing = [one for one in self._book if one.replica.phase == Phase.DOZING]
        level = dormancy.level(spec.sleeps, self._sleepers(dozing), self._host())
        if not level or not record.replica.can_sleep or self.why_not(spec.gpus):
            log.info("%s cannot sleep: %s", spec.name, self.why_not(spec.gpus) or "no host memory is left for it")
            return False
        log.info("%s: %s goes to sleep at level %d", spec.name, spec.deployment, level)
        replica = replace(record.replica, phase=Phase.DOZING, since=now)
        self._book.put(msgspec.structs.replace(record, replica=replica, level=level))
        return True

    def wake(self, action: Wake, now: float) -> None:
        """In the book first: an agent that dies in between finds it there."""
        if (record := self._find(action.marker)) is None:
            return
        spec = action.spec
        log.info("%s: %s is woken from level %d", spec.name, spec.deployment, record.level)
        self._turns.forget(record)
        replica = Replica(spec, Phase.WAKING, now, can_sleep=True, woken=True)
        self._book.put(msgspec.structs.replace(record, replica=replica, started=now, rests={}))
        self._beds.drop(by_marker(record))
        self._prober.reopen(record)  # it may have fallen asleep so lately that its door is shut yet

    def put_away(self, marker: str, force: bool, now: float) -> None:
        if (record := self._find(marker)) is None or record.process is None:
            return
        if force:
            processes.kill(processes.members(record.process, record.its_marker()))
            return
        replica = replace(record.replica, phase=Phase.STOPPING, since=now, asked=True)
        self._beds.put(msgspec.structs.replace(record, replica=replica))
        processes.signal_leader(record.process, signal.SIGTERM)

    def left(self, record: Record) -> None:
        """An engine of the book has ended, or is being stopped: nobody waits for its turn any more."""
        self._turns.forget(record)

    # --- what is told ------------------------------------------------------------------------------------

    def report(self, now: float) -> SleepReport:
        by_id = {one.marker: one for one in self._sleepers()}
        return SleepReport(
            why_not=self.why_not()[:256],
            cap_bytes=self._host().cap,
            held_bytes=sum(one.host_bytes for one in by_id.values()),
            sleepers=tuple(_status(record, by_id[record.marker], now) for record in self._beds)[:MOST_SLEEPERS],
        )

    def _lie_down(self, record: Record, rests: dict[str, int], now: float) -> None:
        spec = record.replica.spec
        log.info("%s: %s sleeps, and holds %d MiB of its GPUs", spec.name, spec.deployment, sum(rests.values()) >> 20)
        self._turns.forget(record)
        replica = Replica(spec, Phase.ASLEEP, now, can_sleep=True, woken=True)
        self._beds.put(msgspec.structs.replace(record, replica=replica, rests=rests))
        self._book.drop(record.partition)

    def _ended(self, record: Record) -> None:
        """All of its processes, for any of them may still hold the device."""
        if record.process and (left := processes.members(record.process, record.its_marker())):
            processes.kill(left)
            return
        spec, asked = record.replica.spec, record.replica.asked
        log.log(
            logging.INFO if asked else logging.WARNING, "%s: a sleeping engine of %s ended", spec.name, spec.deployment
        )
        self._awake.discard(record.marker)
        self._beds.drop(by_marker(record))
        if record.process:
            self._children.exit_code(record.process.pid)
            self._children.forget(record.process.pid)

    def _find(self, marker: str) -> Record | None:
        return next((record for record in self._beds if record.marker == marker), None)

    def _sleepers(self, dozing: Iterable[Record] = ()) -> list[Sleeper]:
        measured = self._reading().asleep
        return [
            Sleeper(
                record.marker,
                record.replica.spec,
                record.replica.since,
                dormancy.host_bytes(record.level, record.replica.spec.sleeps or 0, measured.get(record.marker, 0)),
                record.rests,
            )
            for record in (*self._beds, *dozing)
        ]

    def _held_of(self, gpus: Iterable[str]) -> dict[str, int]:
        return {uuid: sum(record.rests.get(uuid, 0) for record in self._beds) for uuid in gpus}

    def _host(self) -> Host:
        host = self._reading().host
        cap = host.memory_bytes // 2 if self._bounds.cap_bytes is None else self._bounds.cap_bytes
        return Host(cap, host.memory_bytes, host.memory_bytes - host.memory_used_bytes)


def _status(record: Record, sleeper: Sleeper, now: float) -> SleeperStatus:
    spec = record.replica.spec
    return SleeperStatus(
        partition=spec.partition,
        deployment=spec.deployment,
        generation=spec.generation,
        level=record.level or 1,
        asleep_s=max(0.0, now - record.replica.since),
        pid=record.process.pid if record.process else 0,
        host_bytes=sleeper.host_bytes,
        gpu_bytes=sum(record.rests.values()),
        leaving=record.replica.phase == Phase.STOPPING,
    )


__all__ = ["Bounds", "Sleepers"]
