"""From running totals to rates, for many engines at once. A total that falls, another process, or a long silence is a
gap, never a number. What is remembered of an engine is a row of each matrix: no object that lives for minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.telemetry.columns import Flags, Floats, Places, roomy

GAP_S = 10.0  # totals further apart than this say nothing about any one moment between them
LEAST_S = 0.05  # totals closer together than this would make a rate of noise
FLOW_S = 5.0  # tokens per second over the last few reports, so that one report's jitter does not show
LATENCY_S = 60.0  # few requests finish per second: latencies need a longer look back

TOTALS = (
    "prompt_tokens_total",
    "generation_tokens_total",
    "external_kv_tokens_total",
    "computed_tokens_total",
    "requests_total",
    "preemptions_total",
    "prefix_queries_total",
    "prefix_hits_total",
    "external_prefix_queries_total",
    "external_prefix_hits_total",
    "nixl_bytes_total",
    "nixl_transfers_total",
    "nixl_transfer_s_total",
    "nixl_failures_total",
    "kv_expired_total",
    "kv_late_notifications_total",
    "ttft_sum_s",
    "ttft_count",
    "itl_sum_s",
    "itl_count",
)
FLOWS = ("prompt_tokens_total", "generation_tokens_total", "external_kv_tokens_total")
LATENCIES = (("ttft_sum_s", "ttft_count"), ("itl_sum_s", "itl_count"))
_FLOWS = [TOTALS.index(name) for name in FLOWS]
_SUMS, _COUNTS = ([TOTALS.index(pair[end]) for pair in LATENCIES] for end in (0, 1))
_PID = 2**63 - 1  # as large as a number of a process can be


@dataclass(frozen=True, slots=True)
class Growth:
    """A row an engine. `elapsed_s`: since the totals before, NaN where there is no telling; `by`: how much each of
    TOTALS grew; `anew`: another process, or one that counts from the beginning. `per_second` is of FLOWS, `mean_ms` of
    LATENCIES: what was counted in the last LATENCY_S took so long on average, NaN where nothing was."""

    elapsed_s: Floats
    by: Floats
    anew: Flags
    per_second: Floats
    mean_ms: Floats


class Histories:
    """The totals of engine processes over the last LATENCY_S, by slots that its owner hands out and takes back."""

    def __init__(self) -> None:
        self._at = np.zeros(0)  # of the last totals; NaN: none since the slot was opened
        self._process = np.zeros(0, np.int64)
        self._last = np.zeros((0, len(TOTALS)))
        self._known = np.zeros((0, len(TOTALS)))  # the last known of each; an engine may leave some out
        self._flows = _Ring(_FLOWS, FLOW_S, points=16)
        self._latencies = _Ring([*_SUMS, *_COUNTS], LATENCY_S, points=40)

    def open(self, slot: int) -> None:
        """Nothing is known in it."""
        for name in ("_at", "_process", "_last", "_known"):
            setattr(self, name, roomy(getattr(self, name), slot + 1))
        self._at[slot] = np.nan
        self._known[slot] = 0.0

    def add(self, slots: Places, at: Floats, processes: Sequence[int], totals: Floats) -> Growth:
        """Remember the totals of each; no slot comes twice."""
        process = np.fromiter((pid & _PID for pid in processes), np.int64, len(slots))
        elapsed, known = at - self._at[slots], self._known[slots]
        anew = (process != self._process[slots]) | (totals < known).any(axis=1) | np.isnan(elapsed)
        is_broken = anew | ~((elapsed >= 0) & (elapsed <= GAP_S))
        known[is_broken] = 0.0
        by = totals - self._last[slots]
        is_untold = is_broken | (elapsed < LEAST_S)
        elapsed[is_untold] = by[is_untold] = np.nan
        self._at[slots], self._process[slots], self._last[slots] = at, process, totals
        self._known[slots] = np.where(np.isnan(totals), known, totals)
        flow_s, flowed = self._flows.add(slots, at, totals, is_broken)
        _, ended = self._latencies.add(slots, at, totals, is_broken)
        seconds, counts = ended[:, : len(_SUMS)], ended[:, len(_SUMS) :]
        means = np.full(seconds.shape, np.nan)
        np.divide(seconds * 1000.0, counts, out=means, where=counts > 0)
        return Growth(elapsed, by, anew, flowed / flow_s[:, None], means)


class _Ring:
    """Of each slot some columns of its totals as they were, in points that lie so far apart that `over_s` of them are
    there however often totals come."""

    def __init__(self, columns: list[int], over_s: float, points: int) -> None:
        self._columns, self._over_s, self._points = columns, over_s, points
        self._apart_s = over_s / (points - 1)
        self._at = np.zeros((0, points))
        self._newest = np.zeros(0, np.intp)
        self._values = np.zeros((0, points, len(columns)))

    def add(self, slots: Places, at: Floats, totals: Floats, is_broken: Flags) -> tuple[Floats, Floats]:
        """How long ago the newest point is that is `over_s` older, or else the oldest, and what each column grew by
        since. NaN where too little lies between."""
        for name in ("_at", "_newest", "_values"):
            setattr(self, name, roomy(getattr(self, name), int(slots.max(initial=-1)) + 1))
        values = totals[:, self._columns]
        self._at[slots[is_broken]] = np.nan
        self._keep(slots, at, values)
        ages = at[:, None] - self._at[slots]
        far = np.where(ages >= self._over_s, ages, np.inf).argmin(axis=1)
        rows = np.arange(len(slots))
        oldest = np.where(np.isnan(ages), -1.0, ages).argmax(axis=1)
        found = np.where(ages[rows, far] >= self._over_s, far, oldest)
        since = ages[rows, found]
        since[~(since >= LEAST_S)] = np.nan
        grown = values - self._values[slots, found]
        grown[np.isnan(since)] = np.nan
        return since, grown

    def _keep(self, slots: Places, at: Floats, values: Floats) -> None:
        is_due = ~(at - self._at[slots, self._newest[slots]] < self._apart_s)
        slots = slots[is_due]
        place = (self._newest[slots] + 1) % self._points
        self._newest[slots], self._at[slots, place], self._values[slots, place] = place, at[is_due], values[is_due]
