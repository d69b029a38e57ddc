"""A line through what the plays say, what is now and what is usual at this time of day: the centre, to which a
correction adds the spread. Learned anew every few hours, recent days before older ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.history import Seen
from controlplane.domain.forecast.montecarlo import MonteCarlo
from controlplane.domain.forecast.ridge import Line, fit
from controlplane.domain.forecast.simple import REFIT, Rows, features

DAYS = 14
HALF_LIFE_DAYS = 3.0
LEAST = 72  # windows that it learns from at least
HOLD = 1.0  # ridge penalty, in standard deviations of a feature


@dataclass(slots=True)
class Stacked:
    base: MonteCarlo = field(default_factory=MonteCarlo)
    name: str = "stacked regression"
    _seen: Rows = field(default_factory=Rows)
    _line: Line | None = None
    _fitted_at: int = -REFIT

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        plays = self.base.peaks(seen)
        row = np.concatenate([[plays.mean(), plays.std()], features(seen)])
        self._seen.add(seen.place, row)
        if seen.place - self._fitted_at >= REFIT:
            self._fit(seen)
        centre = plays.mean() if self._line is None else self._line.at(row)
        return np.full(len(levels), max(0.0, float(centre)))

    def _fit(self, seen: Seen) -> None:
        places, rows, outcomes = self._seen.known(seen, DAYS)
        if len(outcomes) < LEAST:
            return
        age_days = (places[-1] - places) / seen.per_day
        self._line = fit(rows, outcomes, HOLD, 0.5 ** (age_days / HALF_LIFE_DAYS))
        self._fitted_at = seen.place
