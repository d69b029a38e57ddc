"""Corrects a method's quantiles online, so that they mean what they say whatever the method.

Three ways. The tracker of Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series prediction",
arXiv 2307.16895: s <- s + eta (miss - (1 - level)), and q + s is told; its long-run coverage tends to the level for any
sequence. And conformal: the quantile of the recent residuals, each in units of the root of what was told, for counts
spread the more the greater they are; it is steadier, and slower to see that a method went wrong. And conformal by the
hour, in which residuals count the more the nearer they are to this time of day, for what is missed are rises, and most
come at their hours.

None talks a method down at a level before it has seen windows enough to know of it: of n windows and one to come
each is as likely to be the greatest, so that of 99% less than 99 tell nothing. Those that overlap count as parts.
Before even 19 are known, as for weeks of the day ahead, residuals are taken to be normal, and what is told is what
Student's law of so few leaves possible: the mean of a handful of days is uncertain, and so is how unlike days are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from controlplane.domain.forecast.activity import Floats

Flags = NDArray[np.bool_]

RATE = 0.05  # of the recent range of residuals
RECENT = 288  # residuals whose range counts: two days of ten-minute windows
FIRST = 12  # until so many are known, the greatest residual is a better guess than any step
WEEK = 1008  # residuals whose quantile is taken
SLOW = 0.02  # rate at which the conformal way leaves its quantile where that misses too often
LEAK = 0.998  # of that departure is kept from one outcome to the next
NEAR = 1 / 12  # of a day: residuals so far from this time of it count 0.6 as much as those at it
PRIOR = (
    4.0  # windows that would have been missed or undercut by the root of what was told, taken to be known beforehand
)
BARELY = 19.0  # windows up to which Student's law is told
FAR = 0.1  # and those at any other time at least so much


class Correction(Protocol):
    def correct(self, quantiles: Floats, when: float = 0.0) -> Floats:
        """The told quantiles: never negative, rising with the level. Shape (levels,). `when`: in the day, 0..1."""
        ...

    def update(self, quantiles: Floats, outcome: float, missed: Floats, part: float = 1.0, when: float = 0.0) -> None:
        """`quantiles`: as the method gave them; `outcome`: what they were of; `missed`: by level how much of what was
        to be covered was not, one for a window, less what `miss` counted; `part`: of the window that lies in no earlier
        one; `when` it began. In the order of knowing them."""
        ...

    def miss(self, missed: Flags) -> Flags:
        """A window that is not over has passed these levels already. Which of them count."""
        ...


@dataclass(slots=True)
class Tracker:
    """The quantile tracker, held within the residuals of the last two days: past those no step can help, and what a
    cold start once needed is not carried along for weeks."""

    levels: Floats
    rate: float = RATE
    _shift: Floats = field(init=False)
    _residuals: Floats = field(init=False)
    _windows: float = 0.0

    def __post_init__(self) -> None:
        self.levels = np.asarray(self.levels, np.float64)
        self._shift = np.zeros(len(self.levels))
        self._residuals = np.empty((0, len(self.levels)))

    def correct(self, quantiles: Floats, when: float = 0.0) -> Floats:
        unit = _unit(quantiles)
        shift = _known(self._shift, self.levels, self._windows)
        return _rising(quantiles + _wider(shift, unit, self._residuals, self.levels, self._windows))

    def update(self, quantiles: Floats, outcome: float, missed: Floats, part: float = 1.0, when: float = 0.0) -> None:
        self._windows += part
        recent = self._residuals = np.vstack([self._residuals[1 - RECENT :], outcome - quantiles])
        if len(recent) <= FIRST:
            self._shift = np.quantile(recent, self.levels, axis=0).diagonal().copy()
            return
        self._step(missed - (1.0 - self.levels))

    def miss(self, missed: Flags) -> Flags:
        """Over an hour's horizon an hour is long to wait for what is known now."""
        if len(self._residuals) <= FIRST:
            return np.zeros_like(missed)
        self._step(missed.astype(np.float64))
        return missed

    def _step(self, by: Floats) -> None:
        least, most = self._residuals.min(axis=0), self._residuals.max(axis=0)
        self._shift = np.clip(self._shift + self.rate * np.maximum(most - least, 1.0) * by, least, most)


@dataclass(slots=True)
class Conformal:
    """The quantile of a week of scaled residuals, and a slow tracker on top."""

    levels: Floats
    rate: float = SLOW
    _quantile: Floats = field(init=False)
    _drift: Floats = field(init=False)
    _residuals: Floats = field(init=False)
    _windows: float = 0.0

    def __post_init__(self) -> None:
        self.levels = np.asarray(self.levels, np.float64)
        self._quantile, self._drift = np.zeros(len(self.levels)), np.zeros(len(self.levels))
        self._residuals = np.empty((0, len(self.levels)))

    def correct(self, quantiles: Floats, when: float = 0.0) -> Floats:
        unit, one = _unit(quantiles), np.ones(len(quantiles))
        shift = _known(self._quantile + self._drift, self.levels, self._windows)
        wider = _wider(shift, one, self._residuals, self.levels, self._windows)
        return _rising(quantiles + unit * wider)

    def update(self, quantiles: Floats, outcome: float, missed: Floats, part: float = 1.0, when: float = 0.0) -> None:
        self._windows += part
        self._residuals = np.vstack([self._residuals[1 - WEEK :], (outcome - quantiles) / _unit(quantiles)])
        recent = np.sort(self._residuals, axis=0)
        count = len(recent)
        if count > FIRST:
            spread = recent[int(0.95 * (count - 1))] - recent[int(0.05 * (count - 1))]
            self._drift = LEAK * self._drift + self.rate * spread * (missed - (1.0 - self.levels))
        # Of n residuals the (n + 1)-th part is left for one greater than all: with few, the greatest is told.
        ranks = np.minimum(np.ceil(self.levels * (count + 1)).astype(np.int64), count) - 1
        self._quantile = recent[ranks, np.arange(len(self.levels))]
        self._drift = np.clip(self._drift, recent[0] - self._quantile, recent[-1] - self._quantile)

    def miss(self, missed: Flags) -> Flags:
        return np.zeros_like(missed)


@dataclass(slots=True)
class ByHour(Conformal):
    """The same, but of two weeks' residuals those count most that are of this time of day, and recent ones."""

    _when: Floats = field(default_factory=lambda: np.empty(0))
    _past: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def correct(self, quantiles: Floats, when: float = 0.0) -> Floats:
        if count := len(self._when):
            apart = np.abs((self._when - when + 0.5) % 1.0 - 0.5)
            near = FAR + np.exp(-0.5 * (apart / NEAR) ** 2)
            recent = 0.5 ** (np.arange(count - 1, -1, -1) / WEEK)
            self._quantile = _weighted(self._past, near * recent, self.levels)
        return Conformal.correct(self, quantiles)

    def update(self, quantiles: Floats, outcome: float, missed: Floats, part: float = 1.0, when: float = 0.0) -> None:
        Conformal.update(self, quantiles, outcome, missed, part)
        self._when = np.append(self._when[1 - 2 * WEEK :], when)
        self._past = np.vstack([self._past[1 - 2 * WEEK :].reshape(-1, len(self.levels)), self._residuals[-1:]])


def _weighted(values: Floats, weights: Floats, levels: Floats) -> Floats:
    """The quantile of each column at its level; as much as the heaviest is left for one greater than all."""
    order = np.argsort(values, axis=0)
    below = np.cumsum(weights[order], axis=0)
    places = (below < levels * (weights.sum() + weights.max())).sum(axis=0)
    columns = np.arange(values.shape[1])
    return np.asarray(values[order[np.minimum(places, len(values) - 1), columns], columns])


def whole(told: Floats) -> Floats:
    """A reserve is of whole slots."""
    return np.ceil(told - 1e-9)


def _known(shift: Floats, levels: Floats, windows: float) -> Floats:
    """A level above one half is not lowered, one below not raised, before enough is known of it."""
    few = windows < np.maximum(levels, 1.0 - levels) / np.maximum(np.minimum(levels, 1.0 - levels), 1e-9)
    wider = np.where(levels > 0.5, np.maximum(shift, 0.0), np.where(levels < 0.5, np.minimum(shift, 0.0), shift))
    return np.where(few, wider, shift)


def _wider(shift: Floats, unit: Floats, residuals: Floats, levels: Floats, windows: float) -> Floats:
    """At least as far from the middle as Student's law says, while few windows are known. Residuals are in `unit`."""
    if windows >= BARELY or not len(residuals):
        return shift
    mean = residuals.mean(axis=0)
    freedom = PRIOR + windows
    spread = np.sqrt((PRIOR * unit**2 + windows * residuals.var(axis=0)) / freedom)
    law = mean + stdtrit(freedom, levels) * spread * np.sqrt(1.0 + 1.0 / max(windows, 1.0))
    return np.where(levels > 0.5, np.maximum(shift, law), np.where(levels < 0.5, np.minimum(shift, law), shift))


def _unit(quantiles: Floats) -> Floats:
    return np.sqrt(np.maximum(quantiles, 1.0))


def _rising(quantiles: Floats) -> Floats:
    return np.maximum.accumulate(np.maximum(quantiles, 0.0))
