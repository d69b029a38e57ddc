"""Devices that do not exist, for tests of scale and of faults. Everything they report is labelled simulated.

Their readings follow from the simulated engines that really run on them; a fault is put on one by a line
`<index> <health> <detail>` in the faults file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.contract import Device, DeviceKind, DeviceSample
from workers.devices import Holder

FULL_AT = 8  # requests that count as a fully used device


class SimulatedDevices:
    simulated = True

    def __init__(self, count: int, node: str, faults: Path | None = None, memory_bytes: int = 80 * 2**30) -> None:
        self._faults = faults
        uuids = tuple(f"SIM-{node}-{index}" for index in range(count))
        self._devices = tuple(
            Device(
                uuid=uuid,
                index=index,
                kind=DeviceKind.SIMULATED,
                name="Simulated accelerator",
                memory_bytes=memory_bytes,
                peers=tuple(other for other in uuids if other != uuid),
            )
            for index, uuid in enumerate(uuids)
        )

    def driver(self) -> str:
        return f"{len(self._devices)} simulated devices"

    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def cores(self, uuids: Sequence[str]) -> int:
        return 0

    def sample(self, holders: Sequence[Holder], now: float) -> tuple[DeviceSample, ...]:
        faults = self._read_faults()
        return tuple(
            self._reading(device, [holder for holder in holders if device.uuid in holder.gpus], faults)
            for device in self._devices
        )

    def _reading(self, device: Device, holders: Sequence[Holder], faults: dict[int, tuple[str, str]]) -> DeviceSample:
        health, detail = faults.get(device.index, ("ok", ""))
        if health == "lost":
            return DeviceSample(uuid=device.uuid, health=health, health_detail=detail)
        running = sum(holder.running or 0.0 for holder in holders)
        return DeviceSample(
            uuid=device.uuid,
            utilization=min(1.0, running / FULL_AT),
            memory_used_bytes=sum(holder.figures.memory_bytes // len(holder.gpus) for holder in holders),
            health=health,
            health_detail=detail,
        )

    def _read_faults(self) -> dict[int, tuple[str, str]]:
        if self._faults is None or not self._faults.exists():
            return {}
        words = [line.split(maxsplit=2) for line in self._faults.read_text().splitlines()]
        return {int(w[0]): (w[1], w[2] if len(w) > 2 else "") for w in words if len(w) >= 2 and w[0].isdecimal()}
