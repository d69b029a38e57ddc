"""The cheap methods: what was, what is usual at this hour, and a line through both."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints
from controlplane.domain.forecast.history import UNKNOWN, Seen, known
from controlplane.domain.forecast.ridge import Line, fit

DAYS = 7
HOLD = 1.0  # ridge penalty, in standard deviations of a feature
REFIT = 36  # moments between two fits


def _spread(values: Floats, levels: Floats, fallback: float) -> Floats:
    if not len(values):
        return np.full(len(levels), fallback)
    return np.quantile(values, levels, method="higher")


def naive(seen: Seen) -> float:
    """The last peak on record, and never less than what is active now, for that is a part of the window."""
    return max(_latest(seen.active), _latest(seen.peaks))


def _latest(series: Ints) -> float:
    """The last of what is known: no data is not no demand."""
    if len(series) and series[-1] != UNKNOWN:
        return float(series[-1])
    found = known(series)
    return float(found[-1]) if len(found) else 0.0


@dataclass(slots=True)
class LastValue:
    """The peak of the last window that is over."""

    name: str = "last value"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        return np.full(len(levels), naive(seen))


@dataclass(slots=True)
class Empirical:
    """The quantile of the peaks of the last day."""

    name: str = "empirical, 24 h"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        return _spread(known(seen.peaks[-seen.per_day :]).astype(float), levels, naive(seen))


@dataclass(slots=True)
class SameHour:
    """The quantile of the peaks within half an hour of this time of day, on the last seven days."""

    name: str = "same hour, 7 d"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        reach = max(1, seen.per_day // 48)
        places = [
            place
            for day in range(1, DAYS + 1)
            for place in range(seen.place - day * seen.per_day - reach, seen.place - day * seen.per_day + reach + 1)
            if 0 <= place < len(seen.peaks)
        ]
        return _spread(known(seen.peaks[places]).astype(float), levels, naive(seen))


def seasonal(seen: Seen, series: str, place: int) -> float:
    """The mean at this time of day over the days before, of "active" or "peaks"; NaN where there was none."""
    values = getattr(seen, series)
    before = [place - day * seen.per_day for day in range(1, DAYS + 1)]
    found = known(values[[at for at in before if 0 <= at < len(values)]])
    return float(found.mean()) if len(found) else float("nan")


def features(seen: Seen) -> Floats:
    """What a regression looks at: now, the last window, and how both stand to what is usual. Shape (7,)."""
    now, last = _latest(seen.active), naive(seen)
    usual_now, usual_peak = seasonal(seen, "active", seen.place), seasonal(seen, "peaks", seen.place)
    usual_now = now if np.isnan(usual_now) else usual_now
    usual_peak = last if np.isnan(usual_peak) else usual_peak
    lagged = seen.peaks[-1 - min(seen.lag, len(seen.peaks) - 1)] if len(seen.peaks) else UNKNOWN
    earlier = float(lagged) if lagged != UNKNOWN else last
    angle = 2 * np.pi * (seen.place % seen.per_day) / seen.per_day
    return np.array([now, last, earlier, usual_peak, usual_now, np.sin(angle), np.cos(angle)])


@dataclass(slots=True)
class Rows:
    """Features of past moments beside what came of them, as a method saw them."""

    places: list[int] = field(default_factory=list)
    rows: list[Floats] = field(default_factory=list)

    def add(self, place: int, row: Floats) -> None:
        self.places.append(place)
        self.rows.append(row)

    def known(self, seen: Seen, days: int) -> tuple[Ints, Floats, Floats]:
        """(places, rows, outcomes) of the windows that are over and on record, of the last `days`."""
        places = np.asarray(self.places, np.int64)
        kept = np.flatnonzero((places >= seen.place - days * seen.per_day) & (places < len(seen.peaks)))
        kept = kept[seen.peaks[places[kept]] != UNKNOWN]
        if not len(kept):
            return np.empty(0, np.int64), np.empty((0, 0)), np.empty(0)
        return places[kept], np.array([self.rows[at] for at in kept]), seen.peaks[places[kept]].astype(np.float64)


@dataclass(slots=True)
class ArSeasonal:
    """A line through now, the last windows and the same time on the days before; its residuals give the spread."""

    name: str = "AR + seasonal"
    _seen: Rows = field(default_factory=Rows)
    _line: Line | None = None
    _residuals: Floats = field(default_factory=lambda: np.empty(0))
    _fitted_at: int = -REFIT

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        row = features(seen)
        self._seen.add(seen.place, row)
        if seen.place - self._fitted_at >= REFIT:
            self._fit(seen)
        if self._line is None:
            return np.full(len(levels), naive(seen))
        return np.maximum(self._line.at(row) + np.quantile(self._residuals, levels), 0.0)

    def _fit(self, seen: Seen) -> None:
        _, rows, outcomes = self._seen.known(seen, 2 * DAYS)
        if len(outcomes) < REFIT:
            return
        self._line = fit(rows, outcomes, HOLD)
        self._residuals, self._fitted_at = outcomes - self._line.through(rows), seen.place
