"""Blocking of a pool of GPUs that models of several sizes share: the finite stochastic knapsack.

Each model is a source of its own: idle it asks to start at rate alpha, active it holds its GPUs for d seconds on the
mean, and what finds no room is turned away. The law of the GPUs held is of product form and depends on
durations by their mean alone, whatever their law. rho = alpha d; q(c) are the coefficients of prod (1 + rho z^g) up to
C, and B_i = sum_{c > C - g_i} q_{-i}(c) / sum_{c <= C} q_{-i}(c), the others' law as an activation of i finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Loads:
    """By model, shape (models,): activations per idle second, mean seconds that it stays active, GPUs that it needs."""

    enter: Floats
    stay_s: Floats
    gpus: Ints

    @property
    def chance(self) -> Floats:
        """That it is active where room never lacks."""
        load = self.enter * self.stay_s
        return np.asarray(load / (1.0 + load))

    @property
    def activations_per_s(self) -> Floats:
        return np.asarray(self.enter * (1.0 - self.chance))


def blocking(loads: Loads, capacity: int) -> Floats:
    """P(an activation of each model finds no room), shape (models,). One where it needs more than all there is."""
    chance, sizes = loads.chance, loads.gpus
    count, width = len(chance), capacity + 1
    # Dividing a model out of the product loses all digits; products from both ends need no division.
    after = np.zeros((count + 1, width))
    after[count, 0] = 1.0
    for place in range(count - 1, -1, -1):
        after[place] = _with(after[place + 1], float(chance[place]), int(sizes[place]))
    below = np.cumsum(after, axis=1)
    result, before = np.ones(count), after[count].copy()
    for place in range(count):
        room = capacity - int(sizes[place])
        if room >= 0:
            fits = before[: room + 1] @ below[place + 1][room::-1]
            result[place] = 1.0 - fits / (before @ below[place + 1][::-1])
        before = _with(before, float(chance[place]), int(sizes[place]))
    return np.clip(result, 0.0, 1.0)


def cold(loads: Loads, capacity: int) -> float:
    """P(an activation finds no room), over all models' activations; 0 where there are none."""
    blocked = blocking(loads, capacity)
    # Who is turned away stays idle and asks again: the fuller the pool, the more often the same ones ask.
    rate = loads.enter / (1.0 + loads.enter * loads.stay_s * (1.0 - blocked))
    total = float(rate.sum())
    return float(rate @ blocked) / total if total > 0 else 0.0


def law_of_room(loads: Loads) -> Floats:
    """P(so many GPUs are held) where room never lacks, from 0 to what all models need."""
    found = np.zeros(int(loads.gpus.sum()) + 1)
    found[0] = 1.0
    for chance, size in zip(loads.chance.tolist(), loads.gpus.tolist(), strict=True):
        found = _with(found, chance, size)
    return found


def _with(law: Floats, chance: float, size: int) -> Floats:
    """The law with one more model: `chance` and 1 - `chance` keep the numbers within range where rho would not."""
    result = law * (1.0 - chance)
    if size < len(law):
        result[size:] += law[: len(law) - size] * chance
    return result
