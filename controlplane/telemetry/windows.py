"""Sums of what was reported within one sampling window, and the means that become database rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies
from controlplane.telemetry.rates import Growth, known, ratio_ms
from workers.contract import DeviceSample, ReplicaStatus

GPU_GAUGES = ("utilization", "memory_used_bytes", "power_w", "temperature_c")
ENGINE_GAUGES = ("running", "waiting", "kv_usage")
ENGINE_RATES = {
    "prompt_tps": "prompt_tokens_total",
    "generation_tps": "generation_tokens_total",
    "kv_in_tps": "external_kv_tokens_total",
    "computed_tps": "computed_tokens_total",
    "requests_ps": "requests_total",
    "preemptions_ps": "preemptions_total",
    "prefix_queries_ps": "prefix_queries_total",
    "prefix_hits_ps": "prefix_hits_total",
    "external_queries_ps": "external_prefix_queries_total",
    "external_hits_ps": "external_prefix_hits_total",
    "kv_bytes_ps": "nixl_bytes_total",
    "kv_transfers_ps": "nixl_transfers_total",
    "kv_transfer_s_ps": "nixl_transfer_s_total",
    "kv_failures_ps": "nixl_failures_total",
    "kv_expired_ps": "kv_expired_total",
}
# What a closed window's values are, in this order.
GPU_COLUMNS = (*GPU_GAUGES, "reports")
ENGINE_COLUMNS = (*ENGINE_GAUGES, *ENGINE_RATES, "ttft_ms", "itl_ms", "latencies", "reports", "covered_s")
MAX_OPEN = 50_000  # series at once; more is not a fleet but a fault


@dataclass(slots=True)
class Sums:
    """Sum and count by name; a mean of nothing is None."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    latencies: dict[str, Counts] = field(default_factory=dict)
    reports: int = 0
    covered_s: float = 0.0
    deployment: str = ""  # whose engine it is, as the last report says

    def add(self, name: str, value: float | None) -> None:
        if value is None or known(value) is None:
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
    values: Mapping[str, Any]
    deployment: str = ""


class Windows:
    """Open windows by (node, key, start). Not thread-safe: its owner holds a lock."""

    def __init__(self, every_s: int) -> None:
        self.every_s = every_s
        self._open: dict[tuple[int, str | int, int], Sums] = {}

    def add_device(self, node: int, sample: DeviceSample, now: float) -> None:
        sums = self._sums(node, sample.uuid, now)
        sums.reports += 1
        for name in GPU_GAUGES:
            sums.add(name, getattr(sample, name))

    def add_engine(self, node: int, status: ReplicaStatus, growth: Growth | None, now: float) -> None:
        """`status` with a sample."""
        sums, sample = self._sums(node, status.partition, now), status.sample
        sums.reports += 1
        sums.deployment = status.deployment
        for name in ENGINE_GAUGES:
            sums.add(name, getattr(sample, name))
        if growth is None:
            return
        sums.covered_s += growth.elapsed_s
        for name, by in growth.by.items():
            if by is not None:
                sums.add(name, by)
                sums.add(f"{name}:s", growth.elapsed_s)
        for name, counts in growth.latencies.items():
            sums.latencies.setdefault(name, Counts()).add(counts)

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
    return Closed(node, name, float(start), values, sums.deployment)


def _gpu_values(sums: Sums) -> dict[str, float | int | None]:
    used = sums.mean("memory_used_bytes")
    means = {name: sums.mean(name) for name in GPU_GAUGES}
    return {**means, "memory_used_bytes": None if used is None else round(used), "reports": sums.reports}


def _engine_values(sums: Sums) -> dict[str, Any]:
    return {
        **{name: sums.mean(name) for name in ENGINE_GAUGES},
        **{column: _rate(sums, total) for column, total in ENGINE_RATES.items()},
        "ttft_ms": ratio_ms(sums.total("ttft_sum_s"), sums.total("ttft_count")),
        "itl_ms": ratio_ms(sums.total("itl_sum_s"), sums.total("itl_count")),
        "latencies": latencies.encode(sums.latencies),
        "reports": sums.reports,
        "covered_s": sums.covered_s,
    }


def _rate(sums: Sums, name: str) -> float | None:
    grown, elapsed = sums.total(name), sums.total(f"{name}:s")
    return None if grown is None or not elapsed else grown / elapsed
