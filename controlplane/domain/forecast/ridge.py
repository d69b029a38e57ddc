"""A line through what is known, by weighted ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controlplane.domain.forecast.activity import Floats


@dataclass(frozen=True, slots=True)
class Line:
    mean: Floats
    scale: Floats
    level: float
    weights: Floats

    def at(self, row: Floats) -> float:
        return float(self.level + (row - self.mean) / self.scale @ self.weights)

    def through(self, rows: Floats) -> Floats:
        return np.asarray(self.level + (rows - self.mean) / self.scale @ self.weights, np.float64)


def fit(rows: Floats, outcomes: Floats, hold: float, trust: Floats | None = None) -> Line:
    """Shapes (n, features), (n,); `trust` by row, (n,); `hold`: penalty on a weight, in the feature's deviations."""
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
    scaled, level = (rows - mean) / scale, float(outcomes.mean())
    trusted = scaled if trust is None else scaled * trust[:, None]
    square = trusted.T @ scaled + hold * np.eye(rows.shape[1])
    return Line(mean, scale, level, np.linalg.solve(square, trusted.T @ (outcomes - level)))
