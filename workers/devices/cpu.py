"""CPU slots: on a host without an accelerator the same paths run, one slot in the place of one GPU.

A slot stands for an equal share of the host's cores and memory. Its readings are those of the engine's process
tree, measured; a slot without an engine uses nothing, which is also measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import psutil

from workers.contract import Device, DeviceKind, DeviceSample
from workers.devices import Holder
from workers.processes import PROC, Figures

MEMORY_SHARE = 0.8  # of the host's memory that all slots together offer; the rest is for everything else


class CpuSlots:
    simulated = False

    def __init__(self, slots: int, fallback_id: str, why: str = "") -> None:
        """`fallback_id` names the host where it has no machine id; `why` says why there is no accelerator."""
        self._why = why
        self._cores = psutil.cpu_count() or 1
        self._slots = slots
        self._last: dict[int, tuple[float, float]] = {}  # pid -> (when, CPU seconds)
        memory = int(psutil.virtual_memory().total * MEMORY_SHARE / max(1, slots))
        host, name = host_id(fallback_id), processor_name()
        self._devices = tuple(
            Device(
                uuid=f"CPU-{host}-{index}",
                index=index,
                kind=DeviceKind.CPU,
                name=f"{name}, {self._cores / slots:g} of {self._cores} cores"[:256],
                memory_bytes=memory,
            )
            for index in range(slots)
        )

    def driver(self) -> str:
        slots = f"{self._slots} CPU slots offered" if self._slots else "no CPU slots offered"
        return "; ".join(filter(None, [self._why, slots]))

    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def cores(self, uuids: Sequence[str]) -> int:
        return max(1, int(self._cores * len(uuids) / max(1, self._slots)))

    def sample(self, holders: Sequence[Holder], now: float) -> tuple[DeviceSample, ...]:
        by_slot = {uuid: holder for holder in holders for uuid in holder.gpus}
        load = {id(holder): self._load(holder.figures, now) for holder in holders}
        self._forget({pid for holder in holders for pid in holder.figures.cpu_s})
        return tuple(self._reading(device.uuid, by_slot.get(device.uuid), load) for device in self._devices)

    def _reading(self, uuid: str, holder: Holder | None, load: dict[int, float | None]) -> DeviceSample:
        if holder is None:
            return DeviceSample(uuid=uuid, utilization=0.0, memory_used_bytes=0)
        busy, slots = load[id(holder)], len(holder.gpus)
        share = self._cores * slots / self._slots
        return DeviceSample(
            uuid=uuid,
            utilization=None if busy is None else min(1.0, max(0.0, busy / share)),
            memory_used_bytes=holder.figures.memory_bytes // slots,
        )

    def _load(self, figures: Figures, now: float) -> float | None:
        """CPU seconds per second since the last reading; None at the first."""
        load, known = 0.0, False
        for pid, cpu_s in figures.cpu_s.items():
            before = self._last.get(pid)
            self._last[pid] = (now, cpu_s)
            if before is not None and now > before[0]:
                known = True
                load += max(0.0, cpu_s - before[1]) / (now - before[0])
        return load if known else None

    def _forget(self, living: set[int]) -> None:
        self._last = {pid: last for pid, last in self._last.items() if pid in living}


def host_id(fallback: str) -> str:
    """Stable for this host, and not its machine id itself, which is to be kept confidential."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"forebay cpu {machine or fallback}".encode()).hexdigest()[:12]


def processor_name() -> str:
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "CPU"
