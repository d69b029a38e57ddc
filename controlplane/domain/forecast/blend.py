"""Several methods asked at once: each with its correction and its record; the average of the best is the default.

A level is kept in two ways: so many windows are covered, and so many activations are. Shocks tell them apart: one
missed window may hold a day's share of cold activations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints
from controlplane.domain.forecast.falls import Falls
from controlplane.domain.forecast.history import UNKNOWN, Method, Seen
from controlplane.domain.forecast.tracker import Correction, Flags, Tracker, whole

JUDGED_DAYS = 5  # over which methods are compared
POWER = 6.0  # a method with twice another's loss counts 1 / 2^6 as much: the best lead, near ties share
LEAST = 36  # windows by which methods are compared at least; before that they count alike


def pinball(told: Floats, outcome: Floats | float, levels: Floats) -> Floats:
    """The loss whose least mean is at the quantile."""
    over = np.asarray(outcome, np.float64)[..., None] - told
    return np.maximum(levels * over, (levels - 1.0) * over)


class Of(Enum):
    """What a level is the covered share of."""

    WINDOWS = "windows"
    ACTIVATIONS = "activations"


@dataclass(slots=True)
class _Waiting:
    """A window that is not over: what the method said of it, what was told, and which levels are known to be missed."""

    place: int
    raw: Floats
    told: Floats
    counted: Flags

    def passed(self, peak: float) -> Flags:
        return np.asarray(peak > whole(self.told))


@dataclass(slots=True)
class Tracked:
    """One method and its correction. Outcomes reach it when their window is over, and not before."""

    method: Method
    levels: Floats
    by: Callable[[Floats], Correction] = Tracker
    of: Of = Of.WINDOWS
    told: Floats = field(init=False)
    _correction: Correction = field(init=False)
    _losses: deque[Floats] = field(default_factory=deque)
    _total: Floats = field(init=False)
    _waiting: deque[_Waiting] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._correction = self.by(self.levels)
        self.told, self._total = np.zeros(len(self.levels)), np.zeros(len(self.levels))

    @property
    def name(self) -> str:
        return self.method.name

    def tell(self, seen: Seen, raw: Floats | None = None) -> Floats:
        """Corrected quantiles, shape (levels,). `raw`: what the method says, if it was asked already."""
        self._learn(seen)
        said = self.method.quantiles(seen, self.levels) if raw is None else raw
        self.told = self._correction.correct(said, seen.day_part(seen.place))
        self._waiting.append(_Waiting(seen.place, said, self.told, np.zeros(len(self.levels), bool)))
        return self.told

    def _learn(self, seen: Seen) -> None:
        """Take in the windows that are over by now."""
        peaks = seen.peaks
        while self._waiting and self._waiting[0].place < len(peaks):
            one = self._waiting.popleft()
            if peaks[one.place] == UNKNOWN:
                continue
            outcome = float(peaks[one.place])
            missed, when = self._missed(seen, one, outcome) - one.counted, seen.day_part(one.place)
            self._correction.update(one.raw, outcome, missed, 1.0 / seen.lag, when)
            self._losses.append(pinball(one.told, outcome, self.levels))
            self._total = self._total + self._losses[-1]
            while len(self._losses) > JUDGED_DAYS * seen.per_day:
                self._total = self._total - self._losses.popleft()
        so_far = seen.so_far
        for one in self._waiting:
            passed = one.passed(float(so_far[one.place - seen.place])) & ~one.counted
            if passed.any():
                one.counted |= self._correction.miss(passed)

    def _missed(self, seen: Seen, one: _Waiting, outcome: float) -> Floats:
        """One or none of a window. Of activations all that were cold, in means of a window: more than one after a
        shock, and over time their mean is the share of activations that were cold."""
        if self.of is Of.WINDOWS:
            return one.passed(outcome).astype(np.float64)
        return seen.cold(one.place, whole(one.told))

    @property
    def judged(self) -> int:
        """Windows that its loss is of."""
        return len(self._losses)

    @property
    def loss(self) -> Floats:
        """Mean pinball loss of what was told lately, by level; infinity while nothing is known."""
        return self._total / len(self._losses) if self._losses else np.full(len(self.levels), np.inf)


@dataclass(slots=True)
class Average:
    """What the methods tell, each under each correction, weighed by how well they did lately at that level. Its own
    parts are corrected already: it needs no correction of its own."""

    methods: Sequence[Method]
    levels: Floats
    corrections: Sequence[Callable[[Floats], Correction]]
    of: Of
    parts: list[list[Tracked]] = field(init=False)  # by method, then by correction

    def __post_init__(self) -> None:
        self.parts = [[Tracked(one, self.levels, by, self.of) for by in self.corrections] for one in self.methods]

    def tell(self, seen: Seen, raw: Sequence[Floats]) -> Floats:
        """`raw`: what each method says."""
        told = [one.tell(seen, said) for tracked, said in zip(self.parts, raw, strict=True) for one in tracked]
        return np.asarray((self.weights() * np.array(told)).sum(axis=0))

    def weights(self) -> Floats:
        """Shape (methods x corrections, levels); each level's sum is one."""
        everyone = [one for tracked in self.parts for one in tracked]
        if min(one.judged for one in everyone) < LEAST:
            return np.full((len(everyone), len(self.levels)), 1.0 / len(everyone))
        losses = np.array([one.loss for one in everyone])
        # Losses all zero happen where nothing ever runs: then all are as good.
        trust = (np.maximum(losses, 1e-9) / np.maximum(losses.min(axis=0), 1e-9)) ** -POWER
        return np.asarray(trust / trust.sum(axis=0))


@dataclass(slots=True)
class Blend:
    """The greater of two averages, of which one keeps the level of windows, the other that of activations. No method
    says less than what would be active were those back that fell silent together."""

    methods: Sequence[Method]
    levels: Floats
    corrections: Sequence[Callable[[Floats], Correction]]
    name: str = "average of the best"
    told: Floats = field(init=False)
    averages: list[Average] = field(init=False)
    _falls: Falls = field(default_factory=Falls)

    def __post_init__(self) -> None:
        self.averages = [Average(self.methods, self.levels, self.corrections, of) for of in Of]
        self.told = np.zeros(len(self.levels))

    def tell(self, seen: Seen) -> Floats:
        floor = self._falls.floor(seen, self.levels)
        raw = [np.maximum(method.quantiles(seen, self.levels), floor) for method in self.methods]
        told = np.max([average.tell(seen, raw) for average in self.averages], axis=0)
        self.told = np.maximum.accumulate(told)
        return self.told

    def joined(self, places: Ints) -> None:
        """Models have come: `places` has, of each that was there, where it is now. All that was learned is of the
        number of active ones, but for who is missing."""
        self._falls.joined(places)

    def shares(self) -> dict[str, Floats]:
        """How much each method counts, by level, on the mean of the averages: the reason that a page gives."""
        size = len(self.corrections)
        mean = np.mean([average.weights() for average in self.averages], axis=0)
        return {
            method.name: mean[place * size : (place + 1) * size].sum(axis=0)
            for place, method in enumerate(self.methods)
        }
