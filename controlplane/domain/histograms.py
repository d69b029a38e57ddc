"""Latencies as counts in intervals. They add up over engines and over time whatever bounds each engine counts by, so
that a percentile of many is a percentile of all their requests, not a mean of percentiles."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from workers.contract import Histogram

Interval = tuple[float, float]  # (above, up to] seconds; up to may be infinite
LARGEST = 2.0**62


@dataclass(slots=True)
class Counts:
    """How many observations lie in each interval, and what they come to together in seconds."""

    sum_s: float = 0.0
    inside: dict[Interval, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.inside.values())

    def add(self, other: Counts, weight: float = 1.0) -> None:
        self.sum_s += other.sum_s * weight
        for interval, count in other.inside.items():
            self.inside[interval] = self.inside.get(interval, 0.0) + count * weight


def merged(many: Iterable[Counts]) -> Counts:
    made = Counts()
    for counts in many:
        made.add(counts)
    return made


def growth(before: Histogram, after: Histogram) -> Counts | None:
    """What was observed between two readings of one process; None where they do not tell."""
    if not (_is_sane(before) and _is_sane(after)) or after.count < before.count:
        return None
    if after.count == before.count:
        return Counts()
    inside: dict[Interval, float] = {}
    above, counted = 0.0, 0.0
    bounds = [(le, total - _at_or_below(before, le)) for le, total in zip(after.les, after.counts, strict=True)]
    for le, grown in [*bounds, (math.inf, after.count - before.count)]:
        if grown > counted:
            inside[above, le] = grown - counted
        above, counted = le, max(counted, grown)
    return Counts(max(0.0, (after.sum or 0.0) - (before.sum or 0.0)), inside)


def quantile(counts: Counts, share: float) -> float | None:
    """Seconds that `share` of the observations lie at or below, taking each interval as evenly filled. What lies in an
    interval without an end is as long as its beginning, at the least. None of nothing."""
    parts = _parts(counts.inside)
    wanted = share * sum(count for _, _, count in parts)
    for low, high, count in parts:
        if count >= wanted and count > 0:
            return low + (high - low) * max(0.0, wanted) / count
        wanted -= count
    return parts[-1][1] if parts else None


def mean(counts: Counts) -> float | None:
    total = counts.total
    return counts.sum_s / total if total > 0 else None


def _parts(inside: dict[Interval, float]) -> list[tuple[float, float, float]]:
    """(from, to, how many) in ascending order and without overlap; a point where from is to."""
    closed = sorted((low, low if math.isinf(high) else high, count) for (low, high), count in inside.items() if count)
    if all(first[1] <= second[0] for first, second in pairwise(closed)):
        return closed
    edges = sorted({edge for low, high, _ in closed for edge in (low, high)})
    parts = []
    for low, high in zip(edges, [*edges[1:], edges[-1]], strict=True):
        parts.append((low, low, sum(count for a, b, count in closed if a == b == low)))
        parts.append((low, high, sum(count * (high - low) / (b - a) for a, b, count in closed if a <= low < high <= b)))
    return [part for part in parts if part[2] > 0]


def _at_or_below(histogram: Histogram, le: float) -> float:
    """A bound that was left out has the count of the next one below that was not."""
    place = bisect_right(histogram.les, le)
    return histogram.counts[place - 1] if place else 0.0


def _is_sane(histogram: Histogram) -> bool:
    figures = (*histogram.les, *histogram.counts, histogram.count, histogram.sum or 0.0)
    return (
        len(histogram.les) == len(histogram.counts)
        and all(0 <= figure < LARGEST for figure in figures)
        and all(a < b for a, b in pairwise(histogram.les))
        and all(a <= b for a, b in pairwise((*histogram.counts, histogram.count)))
    )
