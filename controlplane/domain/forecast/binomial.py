"""The number of active models as a sum of unlike coins: a Poisson-binomial law, of the moment and of the maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from controlplane.domain.forecast.activity import Floats, Runs
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import Seen

LEAST_S = 60.0  # of idle time that a rate is taken from


def law(chances: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """P(sum of weights of those that are on = k), shape (sum of weights + 1,). `chances` by model, within 0..1;
    `weights` whole, as of the GPUs that a model needs. By convolution, one model after another."""
    p = np.clip(np.nan_to_num(np.asarray(chances, np.float64)), 0.0, 1.0)
    steps = np.ones(len(p), np.int64) if weights is None else np.asarray(weights, np.int64)
    result = np.zeros(int(steps.sum()) + 1)
    result[0], size = 1.0, 1
    for chance, step in zip(p, steps, strict=True):
        on = result[:size] * chance
        result[:size] *= 1.0 - chance
        result[step : step + size] += on
        size += step
    return result


def of_maximum(moment: Floats, enter_per_s: float, horizon_s: float) -> Floats:
    """The cumulative law of the maximum over a horizon, from the law of a moment: Rice's
    P(max <= r) ~ F(r) exp(-nu(r) H / F(r)), with nu(r) the rate at which r is left upwards. `enter_per_s`: activations
    per second of all idle models."""
    below = np.clip(np.cumsum(moment), 1e-300, 1.0)
    rise = below * np.exp(-enter_per_s * moment * horizon_s / below)
    rise[-1] = 1.0
    return np.maximum.accumulate(rise)


def quantile(cumulative: Floats, levels: Floats) -> Floats:
    return np.minimum(np.searchsorted(cumulative, levels - 1e-12), len(cumulative) - 1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Rates:
    """By model: activations per idle second, and the mean seconds that it stays active."""

    enter: Floats
    stay_s: Floats

    @property
    def chance(self) -> Floats:
        """That it is on: alpha d / (1 + alpha d), for any arrivals (renewal-reward)."""
        load = self.enter * self.stay_s
        return load / (1.0 + load)


def rates(runs: Runs, now: float, span_s: float, recorded_s: float | None = None) -> Rates:
    """Of the last `span_s`, of which so much is on record, read off the log."""
    begin = np.maximum(runs.start, now - span_s)
    on_s = np.bincount(runs.model, np.minimum(runs.end, now) - begin, minlength=runs.count)
    fresh = runs.start > now - span_s
    entered = np.bincount(runs.model[fresh], minlength=runs.count).astype(np.float64)
    idle_s = np.maximum((span_s if recorded_s is None else recorded_s) - on_s, LEAST_S)
    stay = np.where(entered > 0, on_s / np.maximum(entered, 1.0), on_s)
    return Rates(np.where(on_s > 0, np.maximum(entered, 0.5), 0.0) / idle_s, stay)


@dataclass(slots=True)
class PoissonBinomial:
    """Each model on with its share of the last day, whatever it does now; Rice's formula for the maximum."""

    name: str = "Poisson-binomial, 24 h"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        known = rates(seen.runs(DAY_S), seen.now, DAY_S, seen.recorded_s(DAY_S))
        chance = known.chance
        moment = law(chance)
        return quantile(of_maximum(moment, float((known.enter * (1 - chance)).sum()), seen.horizon_s), levels)


@dataclass(slots=True)
class Aegaeon:
    """The quantile of the law whose mean is Aegaeon's E[m] = sum (1 - e^(-lambda T)) (SOSP'25), T the keep-alive."""

    name: str = "Aegaeon"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        last_day = seen.requests(DAY_S)
        number = np.bincount(last_day.model, last_day.number, minlength=seen.models)
        per_s = number / max(seen.recorded_s(DAY_S), LEAST_S)
        active = -np.expm1(-per_s * seen.keep_alive_s)
        return quantile(np.cumsum(law(active)), levels)
