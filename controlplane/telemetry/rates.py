"""From running totals to rates. A total that falls, another process, or a long silence is a gap, never a number."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter

from controlplane.domain.histograms import Counts, growth
from controlplane.telemetry import latencies
from workers.contract import EngineSample, Histogram

GAP_S = 10.0  # totals further apart than this say nothing about any one moment between them
LEAST_S = 0.05  # totals closer together than this would make a rate of noise
FLOW_S = 5.0  # tokens per second over the last few reports, so that one report's jitter does not show
LATENCY_S = 60.0  # few requests finish per second: latencies need a longer look back
HISTOGRAM_GAP_S = 30.0  # histograms come with some reports only

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
_NOTHING: dict[str, float | None] = dict.fromkeys(TOTALS)
_read_totals = attrgetter(*TOTALS)
LARGEST = 2.0**62


def known(value: float | None) -> float | None:
    """The value if it is a number a database and a chart can hold, else None: unknown."""
    return value if value is not None and -LARGEST < value < LARGEST else None  # NaN is neither


@dataclass(frozen=True, slots=True)
class Growth:
    """How much each total grew over `elapsed_s`; None where either end is unknown."""

    elapsed_s: float
    by: dict[str, float | None]
    latencies: dict[str, Counts] = field(default_factory=dict)


class History:
    """The totals of one engine process over the last LATENCY_S. It forgets all when the process changes."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._points: deque[tuple[float, EngineSample]] = deque()
        self._totals: dict[str, float] = {}  # the last known of each; a sample may leave some out
        self._said: dict[str, float] = {}  # those of the last sample
        self._histograms: dict[str, tuple[float, Histogram]] = {}

    def add(self, at: float, process: int, sample: EngineSample) -> Growth | None:
        """Remember `sample`; the growth since the one before, or None where there is no telling."""
        previous = self._points[-1] if self._points else None
        said, totals = self._said, _totals(sample)
        fell = any(total < self._totals.get(name, 0.0) for name, total in totals.items())
        broken = previous is None or process != self._process or not 0 <= at - previous[0] <= GAP_S or fell
        if broken:
            self._points.clear()
            self._totals.clear()
        if process != self._process or fell:
            self._histograms.clear()
        self._totals.update(totals)
        self._process, self._said = process, totals
        self._points.append((at, sample))
        while at - self._points[0][0] > LATENCY_S:
            self._points.popleft()
        ended = self._latencies(at, sample)
        if broken or previous is None or at - previous[0] < LEAST_S:
            return None
        grown = {name: total - said[name] if name in said else None for name, total in totals.items()}
        return Growth(at - previous[0], _NOTHING | grown, ended)

    def per_second(self, *totals: str, over_s: float = FLOW_S) -> list[float | None]:
        """Of each; None where there is no telling."""
        if (first := self._before(over_s)) is None:
            return [None] * len(totals)
        (begin, before), (end, after) = first, self._points[-1]
        grown = (_difference(getattr(before, name), getattr(after, name)) for name in totals)
        return [None if by is None else by / (end - begin) for by in grown]

    def mean_ms(self, sum_s: str, count: str, over_s: float = LATENCY_S) -> float | None:
        """Mean of what was counted in the last `over_s`; None when nothing was."""
        if (first := self._before(over_s)) is None:
            return None
        last = self._points[-1][1]
        seconds = _difference(getattr(first[1], sum_s), getattr(last, sum_s))
        return ratio_ms(seconds, _difference(getattr(first[1], count), getattr(last, count)))

    def _latencies(self, at: float, sample: EngineSample) -> dict[str, Counts]:
        """What each histogram of this sample counted since the one before it, which an earlier sample brought."""
        grown = {}
        for name in latencies.NAMES:
            if (histogram := getattr(sample, name)) is None:
                continue
            before = self._histograms.get(name)
            self._histograms[name] = at, histogram
            if before is None or not 0 <= at - before[0] <= HISTOGRAM_GAP_S:
                continue
            if (counts := growth(before[1], histogram)) is not None:
                grown[name] = counts
        return grown

    def _before(self, over_s: float) -> tuple[float, EngineSample] | None:
        """The newest point at least `over_s` older than the last, else the oldest; None if too little lies between."""
        if not self._points:
            return None
        last, oldest = self._points[-1][0], self._points[0]
        if last - oldest[0] <= over_s:
            return oldest if last - oldest[0] >= LEAST_S else None
        found = next((point for point in reversed(self._points) if last - point[0] >= over_s), oldest)
        return found if last - found[0] >= LEAST_S else None


def ratio_ms(seconds: float | None, count: float | None) -> float | None:
    if seconds is None or not count:
        return None
    return seconds / count * 1000.0


def _totals(sample: EngineSample) -> dict[str, float]:
    """Those that are known."""
    read = zip(TOTALS, _read_totals(sample), strict=True)
    return {name: total for name, total in read if total is not None and -LARGEST < total < LARGEST}


def _difference(before: float | None, after: float | None) -> float | None:
    before, after = known(before), known(after)
    return None if before is None or after is None else after - before
