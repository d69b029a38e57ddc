"""Quantile regression: the line under which a peak lies with a given chance, through features of the clock, of the
recent past, and of what the Monte Carlo says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.history import Seen
from controlplane.domain.forecast.montecarlo import MonteCarlo
from controlplane.domain.forecast.simple import REFIT, Rows, features

LEAST = 144  # windows that it learns from at least
DAYS = 14
HOLD = 2.0  # penalty on a weight, in standard deviations of its feature: few windows must not bend the line


@dataclass(slots=True)
class QuantileRegression:
    """Learns the peak less the Monte Carlo's median, so that with no habit found it says what that one says."""

    base: MonteCarlo = field(default_factory=MonteCarlo)
    name: str = "quantile regression"
    _seen: Rows = field(default_factory=Rows)
    _weights: Floats | None = None
    _center: Floats = field(default_factory=lambda: np.empty(0))
    _scale: Floats = field(default_factory=lambda: np.empty(0))
    _fitted_at: int = -REFIT

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        plays = self.base.peaks(seen)
        row = np.concatenate([features(seen), [np.median(plays), plays.std()]])
        self._seen.add(seen.place, row)
        if seen.place - self._fitted_at >= REFIT:
            self._fit(seen, levels)
        if self._weights is None:
            return np.quantile(plays, levels, method="higher")
        scaled = (row - self._center) / self._scale
        told = np.median(plays) + np.concatenate([[1.0], scaled]) @ self._weights
        return np.maximum.accumulate(np.maximum(told, 0.0))

    def _fit(self, seen: Seen, levels: Floats) -> None:
        _, rows, outcomes = self._seen.known(seen, DAYS)
        if len(outcomes) < LEAST:
            return
        self._center, self._scale = rows.mean(0), np.maximum(rows.std(0), 1e-6)
        scaled = np.column_stack([np.ones(len(rows)), (rows - self._center) / self._scale])
        target = outcomes - rows[:, -2]
        found = [pinball_line(scaled, target, float(level), HOLD) for level in levels]
        if all(one is not None for one in found):
            self._weights, self._fitted_at = np.column_stack([one for one in found if one is not None]), seen.place


def pinball_line(rows: Floats, target: Floats, level: float, hold: float) -> Floats | None:
    """Weights that make the pinball loss of `rows @ weights` least, plus `hold` times the size of all but the first; as
    a linear program (Koenker and Bassett, 1978). None where it was not solved."""
    from scipy.optimize import linprog  # a second to import, and only who forecasts asks
    from scipy.sparse import csr_matrix, eye, hstack

    count, width = rows.shape
    matrix = csr_matrix(rows)
    # weights = w+ - w-, target - rows @ weights = over - under
    equal = hstack([matrix, -matrix, eye(count), -eye(count)], format="csc")
    held = np.concatenate([[0.0], np.full(width - 1, hold)])
    cost = np.concatenate([held, held, np.full(count, level), np.full(count, 1.0 - level)])
    solved = linprog(cost, A_eq=equal, b_eq=target, method="highs", options={"time_limit": 5.0})
    return np.asarray(solved.x[:width] - solved.x[width : 2 * width]) if solved.status == 0 else None
