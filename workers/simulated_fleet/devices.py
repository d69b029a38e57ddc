"""The devices of a simulated node, and what they are seen to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from workers.contract import Device, DeviceKind, DeviceSample
from workers.simulated_fleet import load

GIB = 2**30
MEMORY_BYTES = 80 * GIB
POWER_LIMIT_W = 700.0


class Devices:
    """`count` of them, warm as what ran on them leaves them."""

    def __init__(self, node: str, count: int) -> None:
        self.uuids = tuple(uuid_of(node, index) for index in range(count))
        self._heat = [34.0] * count  # °C
        self.all = tuple(
            Device(
                uuid=uuid,
                index=index,
                kind=DeviceKind.SIMULATED,
                name="Simulated accelerator",
                memory_bytes=MEMORY_BYTES,
                peers=tuple(other for other in self.uuids if other != uuid),
            )
            for index, uuid in enumerate(self.uuids)
        )

    def samples(
        self, engines: Mapping[str, load.Engine], ills: Mapping[str, Collection[str]], elapsed_s: float
    ) -> tuple[DeviceSample, ...]:
        """`engines` by the uuid of each device they are on; `ills`: the kinds of faults by a device's index."""
        return tuple(
            self._sample(index, uuid, engines.get(uuid), ills.get(str(index), ()), elapsed_s)
            for index, uuid in enumerate(self.uuids)
        )

    def _sample(
        self, index: int, uuid: str, engine: load.Engine | None, ill: Collection[str], elapsed_s: float
    ) -> DeviceSample:
        if "lose" in ill:
            return DeviceSample(uuid=uuid, health="lost", health_detail="simulated: the device is gone from the bus")
        busy = engine.busy if engine else 0.0
        self._heat[index] = heat = load.warmer(self._heat[index], busy, elapsed_s)
        slowed = "throttle" in ill
        return DeviceSample(
            uuid=uuid,
            utilization=round(busy, 3),
            memory_used_bytes=memory_of(engine) if engine else GIB // 2,
            power_w=round(load.power_w(busy) * (0.6 if slowed else 1.0), 1),
            power_limit_w=POWER_LIMIT_W,
            temperature_c=93.0 if "hot" in ill else round(heat, 1),
            sm_clock_mhz=1005.0 if slowed else 1980.0,
            memory_clock_mhz=2619.0,
            ecc_uncorrected=2 if "ecc" in ill else 0,
            throttle="HwThermalSlowdown" if slowed else "",
            foreign_pids=(4242,) if "foreign" in ill else (),
        )


def uuid_of(node: str, index: int | str) -> str:
    return f"SIM-{node}-{index}"


def memory_of(engine: load.Engine) -> int:
    """Bytes of each device that the engine is on."""
    return int((18 + 52 * engine.kv) * GIB)
