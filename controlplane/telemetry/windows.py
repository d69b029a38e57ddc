"""Sums of what was reported within one sampling window, and the means that become database rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.telemetry.rates import Growth, known, ratio_ms
from workers.contract import DeviceSample, EngineSample

GPU_GAUGES = ("utilization", "memory_used_bytes", "power_w", "temperature_c")
ENGINE_GAUGES = ("running", "waiting", "kv_usage")
MAX_OPEN = 50_000  # series at once; more is not a fleet but a fault


@dataclass(slots=True)
class Sums:
    """Sum and count by name; a mean of nothing is None."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float | None) -> None:
        if (value := known(value)) is None:
            return
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.counts[name] if name in self.sums else None

    def total(self, name: str) -> float | None:
        return self.sums.get(name)


@dataclass(frozen=True, slots=True)
class Closed:
    """One finished window of one GPU (`key`: its uuid) or one engine (`key`: its partition) of a node."""

    node: int
    key: str | int
    at: float  # start of the window
    values: Mapping[str, float | None]


class Windows:
    """Open windows by (node, key, start). Not thread-safe: its owner holds a lock."""

    def __init__(self, every_s: int) -> None:
        self.every_s = every_s
        self._open: dict[tuple[int, str | int, int], Sums] = {}

    def add_device(self, node: int, sample: DeviceSample, now: float) -> None:
        sums = self._sums(node, sample.uuid, now)
        for name in GPU_GAUGES:
            sums.add(name, getattr(sample, name))

    def add_engine(self, node: int, partition: int, sample: EngineSample, growth: Growth | None, now: float) -> None:
        sums = self._sums(node, partition, now)
        for name in ENGINE_GAUGES:
            sums.add(name, getattr(sample, name))
        for name, by in growth.by.items() if growth else ():
            if by is not None:
                sums.add(name, by)
                sums.add(f"{name}:s", growth.elapsed_s)

    def close(self, now: float, *, all_of_them: bool = False) -> list[Closed]:
        """Take out the windows that ended before `now` (or all: the process is about to stop)."""
        current = self._start(now)
        done = [key for key in self._open if all_of_them or key[2] < current]
        return [_closed(key, self._open.pop(key)) for key in done]

    def _sums(self, node: int, key: str | int, now: float) -> Sums:
        if len(self._open) >= MAX_OPEN:
            return Sums()
        return self._open.setdefault((node, key, self._start(now)), Sums())

    def _start(self, now: float) -> int:
        return int(now // self.every_s) * self.every_s


def _closed(key: tuple[int, str | int, int], sums: Sums) -> Closed:
    node, name, start = key
    values = _gpu_values(sums) if isinstance(name, str) else _engine_values(sums)
    return Closed(node, name, float(start), values)


def _gpu_values(sums: Sums) -> dict[str, float | None]:
    return {name: sums.mean(name) for name in GPU_GAUGES}


def _engine_values(sums: Sums) -> dict[str, float | None]:
    return {
        **{name: sums.mean(name) for name in ENGINE_GAUGES},
        "prompt_tps": _rate(sums, "prompt_tokens_total"),
        "generation_tps": _rate(sums, "generation_tokens_total"),
        "ttft_ms": ratio_ms(sums.total("ttft_sum_s"), sums.total("ttft_count")),
        "itl_ms": ratio_ms(sums.total("itl_sum_s"), sums.total("itl_count")),
    }


def _rate(sums: Sums, name: str) -> float | None:
    grown, elapsed = sums.total(name), sums.total(f"{name}:s")
    return None if grown is None or not elapsed else grown / elapsed
