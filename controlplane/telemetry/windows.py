"""Sums of what was reported within one sampling window, and the means that become database rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies
from controlplane.telemetry.columns import Floats, Places, plain, roomy
from controlplane.telemetry.rates import LATENCIES, TOTALS, Growth

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
MAX_OPEN = 50_000  # series of a kind in a window; more is not a fleet but a fault
_USED = GPU_GAUGES.index("memory_used_bytes")
_MEANS = [*range(len(ENGINE_GAUGES)), *(len(ENGINE_GAUGES) + TOTALS.index(name) for name in ENGINE_RATES.values())]
_SUMS, _COUNTS = ([len(ENGINE_GAUGES) + TOTALS.index(pair[end]) for pair in LATENCIES] for end in (0, 1))


class Closed(NamedTuple):
    """One finished window of one GPU (`key`: its uuid) or one engine (`key`: its partition) of a node."""

    node: int
    key: str | int
    at: float  # start of the window
    values: Mapping[str, Any]
    deployment: str = ""


class _Table:
    """Sums, and what they are to be divided by, a row each; row 0 takes what nobody asks for."""

    def __init__(self, columns: int) -> None:
        self.keys: list[tuple[int, Any]] = [(0, "")]
        self._places: dict[tuple[int, Any], int] = {}
        self._of_node: dict[int, tuple[list[Any], list[int]]] = {}
        self.sums, self.weights = np.zeros((64, columns)), np.zeros((64, columns))
        self.reports = np.zeros(64, np.intp)

    def places(self, node: int, names: list[Any]) -> list[int]:
        """The rows of these of a node, each another one."""
        held = self._of_node.get(node)
        if held is None or held[0] != names:
            last = {name: at for at, name in enumerate(names)}  # a name that comes twice counts once
            found = [self.place(node, name) if last[name] == at else 0 for at, name in enumerate(names)]
            held = self._of_node[node] = names, found
        return held[1]

    def place(self, node: int, name: Any) -> int:
        if (place := self._places.get((node, name))) is None:
            if len(self.keys) > MAX_OPEN:
                return 0
            place = self._places[node, name] = len(self.keys)
            self.keys.append((node, name))
        return place

    def add(self, places: Places, values: Floats, weights: Floats) -> None:
        """Add to each of these rows what is known of it. `weights`: one for each value, or for all of a row."""
        for name in ("sums", "weights", "reports"):
            setattr(self, name, roomy(getattr(self, name), len(self.keys)))
        is_known = ~np.isnan(values)
        self.sums[places] += np.where(is_known, values, 0.0)
        self.weights[places] += np.where(is_known, weights, 0.0)
        self.reports[places] += 1

    def means(self) -> Floats:
        """Of each row, NaN of nothing."""
        made = np.full(self.sums.shape, np.nan)
        return np.divide(self.sums, self.weights, out=made, where=self.weights > 0)


class Window:
    """What came from `start` on, for as long as a window is."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.gpus, self.engines = _Table(len(GPU_GAUGES)), _Table(len(ENGINE_GAUGES) + len(TOTALS))
        self.covered_s = np.zeros(64)
        self.deployments: dict[int, str] = {}  # by row: whose engine it is, as the last report says
        self.ended: dict[int, dict[str, Counts]] = {}

    def add_gpus(self, places: Places, gauges: Floats) -> None:
        self.gpus.add(places, gauges, np.ones((len(places), 1)))

    def add_engines(self, places: Places, gauges: Floats, growth: Growth) -> None:
        elapsed = np.nan_to_num(growth.elapsed_s)
        weights = np.repeat([np.ones_like(elapsed), elapsed], [len(ENGINE_GAUGES), len(TOTALS)], axis=0).T
        self.engines.add(places, np.hstack((gauges, growth.by)), weights)
        self.covered_s = roomy(self.covered_s, len(self.engines.keys))
        self.covered_s[places] += elapsed

    def add_ended(self, place: int, ended: Mapping[str, Counts]) -> None:
        held = self.ended.setdefault(place, {})
        for name, counts in ended.items():
            held.setdefault(name, Counts()).add(counts)

    def close(self) -> list[Closed]:
        return [*self._closed(self.gpus, self._gpu_values()), *self._closed(self.engines, self._engine_values())]

    def _closed(self, table: _Table, values: Sequence[Mapping[str, Any]]) -> list[Closed]:
        at, whose = float(self.start), self.deployments
        return [
            Closed(node, name, at, values[place], whose.get(place, "") if table is self.engines else "")
            for place, (node, name) in enumerate(table.keys)
            if place and values[place]["reports"]
        ]

    def _gpu_values(self) -> list[dict[str, Any]]:
        means = self.gpus.means()
        means[:, _USED] = np.round(means[:, _USED])
        made = [dict(zip(GPU_GAUGES, row, strict=True)) for row in plain(means)]
        for values, reports in zip(made, self.gpus.reports.tolist(), strict=True):
            used = values["memory_used_bytes"]
            values["memory_used_bytes"] = None if used is None else int(used)
            values["reports"] = reports
        return made

    def _engine_values(self) -> list[dict[str, Any]]:
        means, sums = self.engines.means(), self.engines.sums
        ended = np.full((len(sums), len(LATENCIES)), np.nan)
        np.divide(sums[:, _SUMS] * 1000.0, sums[:, _COUNTS], out=ended, where=sums[:, _COUNTS] > 0)
        figures = plain(np.hstack((means[:, _MEANS], ended)))
        reports, covered_s = self.engines.reports.tolist(), roomy(self.covered_s, len(sums)).tolist()
        told = [latencies.encode(self.ended.get(place, {})) for place in range(len(sums))]
        rest = zip(told, reports, covered_s, strict=True)
        return [dict(zip(ENGINE_COLUMNS, (*row, *more), strict=True)) for row, more in zip(figures, rest, strict=True)]


class Windows:
    """Open windows by their start. Not thread-safe: its owner holds a lock."""

    def __init__(self, every_s: int) -> None:
        self.every_s = every_s
        self._open: dict[int, Window] = {}

    def start(self, at: float) -> int:
        return int(at // self.every_s) * self.every_s

    def at(self, start: int) -> Window:
        if (window := self._open.get(start)) is None:
            window = self._open[start] = Window(start)
        return window

    def close(self, now: float, *, all_of_them: bool = False) -> list[Closed]:
        """Take out the windows that ended before `now` (or all: the process is about to stop)."""
        current = self.start(now)
        done = sorted(start for start in self._open if all_of_them or start < current)
        return [closed for start in done for closed in self._open.pop(start).close()]
