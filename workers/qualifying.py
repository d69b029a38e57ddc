"""Measures the GPUs that the spec wants measured, one at a time and only while nothing else is on them.

The agent's loop calls it. A run ends at once when an engine is to have its GPU, or one of those it copies to. Results
are on disk until the spec no longer asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from workers import processes
from workers.book import Record
from workers.config import write_private
from workers.contract import Device, DeviceKind, DeviceSample, NodeSpec
from workers.devices import Holder, Source
from workers.measuring import CannotMeasure, Program, Run, failed
from workers.qualification import Qualification, QualifyState, QualifyWanted

log = logging.getLogger(__name__)


class Qualifier:
    def __init__(
        self, folder: Path, *, program: Program, source: Source, samples: Callable[[], Iterable[DeviceSample]]
    ) -> None:
        self._program, self._source, self._samples = program, source, samples
        self._file = folder / "qualifications.json"
        self._results = _read(self._file)
        self._run: Run | None = None

    # --- from other threads ------------------------------------------------------------------------------

    def holders(self) -> tuple[Holder, ...]:
        """The run as the devices need to know it, so that they do not take it for somebody else's."""
        run = self._run
        members = processes.tree(run.process) if run else []
        if not run or not members:
            return ()
        return (Holder(run.gpus, frozenset(m.pid for m in members), processes.figures(members)),)

    # --- from the agent's loop ---------------------------------------------------------------------------

    def tick(self, wanted: Sequence[QualifyWanted], busy: Mapping[str, str], now: float) -> tuple[Qualification, ...]:
        """One step, and how each wanted one stands. `busy`: devices that engines hold or shall have, with by whom.
        Whatever goes wrong here, engines must be seen to."""
        try:
            self._step(wanted, busy, now)
        except Exception:
            log.exception("measuring failed; the next tick tries again")
        return tuple(self._standing(one, busy) for one in wanted)

    def _step(self, wanted: Sequence[QualifyWanted], busy: Mapping[str, str], now: float) -> None:
        self._forget({one.id for one in wanted})
        if self._run:
            self._watch(self._run, wanted, busy, now)
        if self._run is None:
            self._start_next(wanted, busy, now)

    def held(self) -> frozenset[str]:
        """Devices on which a process of ours still is."""
        return frozenset(self._run.gpus) if self._run else frozenset()

    def stop(self) -> None:
        if self._run:
            self._kill(self._run, "the agent ends")

    def _watch(self, run: Run, wanted: Sequence[QualifyWanted], busy: Mapping[str, str], now: float) -> None:
        if run.child.poll() is not None:
            self._close(run) if run.given_up else self._finish(self._program.outcome(run))
        elif run.given_up:
            run.kill()
        elif run.wanted.id not in {one.id for one in wanted}:
            self._kill(run, "it is no longer wanted")
        elif taken := [uuid for uuid in run.gpus if uuid in busy]:
            self._kill(run, f"{taken[0]} goes to {busy[taken[0]]}")
        elif now > run.until:
            self._kill(run, "it took too long")
            self._finish(failed(run.wanted, "the measurement did not end in its time"))
        else:
            run.observe(self._samples())

    def _start_next(self, wanted: Sequence[QualifyWanted], busy: Mapping[str, str], now: float) -> None:
        for one in wanted:
            if one.id in self._results or self._obstacle(one, busy):
                continue
            try:
                device = {device.uuid: device for device in self._source.devices()}[one.gpu]
                self._run = self._program.start(one, device, self._peers(device, busy), now)
            except (CannotMeasure, OSError) as error:
                self._finish(failed(one, str(error)))
                continue
            return

    def _obstacle(self, one: QualifyWanted, busy: Mapping[str, str]) -> str:
        """Why it can't be measured now, "" if it can."""
        if one.gpu in busy:
            return f"the device is held by {busy[one.gpu]}"
        sample = {sample.uuid: sample for sample in self._samples()}.get(one.gpu)
        if one.gpu not in {device.uuid for device in self._source.devices()}:
            return "the device is not on this node"
        if sample is not None and sample.health == "lost":
            return "the device is lost"
        return "a process of somebody else's is on the device" if sample is not None and sample.foreign_pids else ""

    def _peers(self, device: Device, busy: Mapping[str, str]) -> tuple[str, ...]:
        """Whole GPUs that are free, too: a process sees one slice (MIG) at most."""
        if device.kind != DeviceKind.NVIDIA:
            return ()
        quiet = {s.uuid for s in self._samples() if s.health != "lost" and not s.foreign_pids}
        others = [d.uuid for d in self._source.devices() if d.kind == DeviceKind.NVIDIA and d.uuid != device.uuid]
        return tuple(uuid for uuid in others if uuid in quiet and uuid not in busy)

    def _kill(self, run: Run, why: str) -> None:
        """Ends it now; `held` names its devices until it is gone."""
        log.info("measuring %s is given up: %s", run.wanted.gpu, why)
        if run.kill():
            self._close(run)

    def _finish(self, result: Qualification) -> None:
        self._results[result.id] = result
        if self._run and self._run.child.poll() is not None:
            self._close(self._run)
        self._save()

    def _close(self, run: Run) -> None:
        run.close()
        self._run = None

    def _forget(self, wanted: set[str]) -> None:
        if gone := self._results.keys() - wanted:
            for one in gone:
                del self._results[one]
            self._save()

    def _save(self) -> None:
        write_private(self._file, msgspec.json.encode(self._results))

    def _standing(self, one: QualifyWanted, busy: Mapping[str, str]) -> Qualification:
        if result := self._results.get(one.id):
            return result
        if self._run and self._run.wanted.id == one.id:
            return Qualification(id=one.id, gpu=one.gpu, state=QualifyState.RUNNING)
        why = self._obstacle(one, busy) or "another device of the node is being measured"
        return Qualification(id=one.id, gpu=one.gpu, state=QualifyState.WAITING, message=why[:256])


def busy(spec: NodeSpec, records: Iterable[Record], stray: Iterable[str]) -> dict[str, str]:
    """Devices that are not to be measured: engines have them or shall have them; with by whom."""
    engines = {uuid: r.replica.spec.name for r in records if r.is_live for uuid in r.replica.spec.gpus}
    wanted = {uuid: replica.name for replica in spec.replicas for uuid in replica.gpus}
    return dict.fromkeys(stray, "a process left over from earlier") | engines | wanted


def _read(path: Path) -> dict[str, Qualification]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Qualification])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        log.error("%s cannot be read; what is still wanted is measured again: %s", path, error)
        return {}
