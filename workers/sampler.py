"""Reads devices, the host and the engines' process trees once a second, in a thread of its own: drivers can hang."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from workers import processes
from workers.book import Record, clock
from workers.contract import Device, DeviceSample, HostSample
from workers.devices import Holder, Source
from workers.probes import Prober
from workers.processes import Process

log = logging.getLogger(__name__)
PERIOD_S = 1.0
PSS_EVERY_S = 5.0
STALE_S = 10.0  # older readings are not reported: they no longer say how it is


@dataclass(frozen=True, slots=True)
class Reading:
    at: float
    devices: tuple[Device, ...]
    samples: tuple[DeviceSample, ...]
    host: HostSample
    memory: Mapping[int, int] = field(default_factory=dict)  # partition -> bytes of its process tree
    driver: str = ""
    asleep: Mapping[str, int] = field(default_factory=dict)  # the same of engines that sleep, by marker


class Sampler:
    def __init__(
        self,
        source: Source,
        records: Callable[[], Iterable[Record]],
        prober: Prober,
        models: Path = Path("/"),
        others: Callable[[], Iterable[Holder]] = tuple,
    ) -> None:
        """`others`: what else of this agent's is on devices, besides the engines."""
        self._source, self._records, self._prober, self._models = source, records, prober, models
        self._others = others
        self._done = threading.Event()
        self._pss: dict[Process, tuple[float, int | None]] = {}
        psutil.cpu_percent()  # the first call only starts the count
        self.latest = self.read(clock())

    def run(self) -> None:
        while not self._done.wait(PERIOD_S):
            try:
                self.latest = self.read(clock())
            except Exception:
                log.exception("reading the devices failed")

    def stop(self) -> None:
        self._done.set()

    def fresh(self, now: float) -> Reading | None:
        return self.latest if now - self.latest.at <= STALE_S else None

    def usable(self) -> frozenset[str]:
        """Devices an engine can be started on."""
        lost = {sample.uuid for sample in self.latest.samples if sample.health == "lost"}
        return frozenset(device.uuid for device in self.latest.devices if device.uuid not in lost)

    def read(self, now: float) -> Reading:
        holders = list(self._others())
        memory: dict[int, int] = {}
        asleep: dict[str, int] = {}
        for record in self._records():
            if holder := self._holder(record):
                holders.append(holder)
                if record.rests:
                    asleep[record.marker] = holder.figures.memory_bytes
                else:
                    memory[record.partition] = holder.figures.memory_bytes
        samples = self._source.sample(holders, now)
        return Reading(now, self._source.devices(), samples, self._host(), memory, self._source.driver(), asleep)

    def _holder(self, record: Record) -> Holder | None:
        if not record.is_live or record.process is None:
            return None
        members = processes.tree(record.process)
        if not members:
            return None
        probe, pids = self._prober.latest(record), frozenset(member.pid for member in members)
        figures = processes.figures(members)
        if self._source.cores(record.replica.spec.gpus):
            figures = replace(figures, memory_bytes=self._exact(record.process, pids) or figures.memory_bytes)
        return Holder(
            gpus=record.replica.spec.gpus,
            pids=pids,
            figures=figures,
            running=probe.sample.running if probe and probe.sample else None,
        )

    def _exact(self, process: Process, pids: frozenset[int]) -> int | None:
        """On CPU slots memory is the scarce thing, and the engine's processes share it: worth a closer look, but a
        seldom one."""
        at, known = self._pss.get(process, (0.0, None))
        if clock() - at >= PSS_EVERY_S:
            known = processes.pss_bytes(pids)
            self._pss = {p: seen for p, seen in self._pss.items() if processes.is_alive(p)}
            self._pss[process] = (clock(), known)
        return known

    def _host(self) -> HostSample:
        memory = psutil.virtual_memory()
        return HostSample(
            cpu_utilization=min(1.0, psutil.cpu_percent() / 100),
            cpu_count=psutil.cpu_count() or 0,
            memory_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            disk_free_bytes=shutil.disk_usage(self._models).free,
        )
