"""Several methods asked at once: each with its correction and its record; the average of the best is the default."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.history import UNKNOWN, Method, Seen
from controlplane.domain.forecast.tracker import Correction, Flags, Tracker

JUDGED_DAYS = 5  # over which methods are compared
POWER = 6.0  # a method with twice another's loss counts 1 / 2^6 as much: the best lead, near ties share
LEAST = 36  # windows by which methods are compared at least; before that they count alike


def pinball(told: Floats, outcome: Floats | float, levels: Floats) -> Floats:
    """The loss whose least mean is at the quantile."""
    over = np.asarray(outcome, np.float64)[..., None] - told
    return np.maximum(levels * over, (levels - 1.0) * over)


@dataclass(slots=True)
class _Waiting:
    """A window that is not over: what the method said of it, what was told, and which levels are known to be missed."""

    place: int
    raw: Floats
    told: Floats
    counted: Flags

    def passed(self, peak: float) -> Flags:
        return np.asarray(peak > np.ceil(self.told - 1e-9))


@dataclass(slots=True)
class Tracked:
    """One method and its correction. Outcomes reach it when their window is over, and not before."""

    method: Method
    levels: Floats
    by: Callable[[Floats], Correction] = Tracker
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
        self.told = self._correction.correct(said)
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
            self._correction.update(one.raw, outcome, one.passed(outcome) & ~one.counted)
            self._losses.append(pinball(one.told, outcome, self.levels))
            self._total = self._total + self._losses[-1]
            while len(self._losses) > JUDGED_DAYS * seen.per_day:
                self._total = self._total - self._losses.popleft()
        so_far = seen.so_far
        for one in self._waiting:
            missed = one.passed(float(so_far[one.place - seen.place])) & ~one.counted
            if missed.any():
                one.counted |= self._correction.miss(missed)

    @property
    def judged(self) -> int:
        """Windows that its loss is of."""
        return len(self._losses)

    @property
    def loss(self) -> Floats:
        """Mean pinball loss of what was told lately, by level; infinity while nothing is known."""
        return self._total / len(self._losses) if self._losses else np.full(len(self.levels), np.inf)


@dataclass(slots=True)
class Blend:
    """What the methods tell, each under each correction, averaged by how well they did lately at that level. Its own
    parts are corrected already: it needs no correction of its own."""

    methods: Sequence[Method]
    levels: Floats
    corrections: Sequence[Callable[[Floats], Correction]]
    name: str = "average of the best"
    told: Floats = field(init=False)
    parts: list[tuple[Method, list[Tracked]]] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = [(one, [Tracked(one, self.levels, by) for by in self.corrections]) for one in self.methods]
        self.told = np.zeros(len(self.levels))

    def tell(self, seen: Seen) -> Floats:
        told = []
        for method, tracked in self.parts:
            raw = method.quantiles(seen, self.levels)
            told += [one.tell(seen, raw) for one in tracked]
        mean = (self.weights() * np.array(told)).sum(axis=0)
        self.told = np.maximum.accumulate(mean)
        return self.told

    def weights(self) -> Floats:
        """Shape (methods x corrections, levels); each level's sum is one."""
        everyone = [one for _, tracked in self.parts for one in tracked]
        if min(one.judged for one in everyone) < LEAST:
            return np.full((len(everyone), len(self.levels)), 1.0 / len(everyone))
        losses = np.array([one.loss for one in everyone])
        # Losses all zero happen where nothing ever runs: then all are as good.
        trust = (np.maximum(losses, 1e-9) / np.maximum(losses.min(axis=0), 1e-9)) ** -POWER
        return np.asarray(trust / trust.sum(axis=0))

    def shares(self) -> dict[str, Floats]:
        """How much each method counts, by level: the reason that a page gives."""
        weights, size = self.weights(), len(self.corrections)
        return {
            method.name: weights[place * size : (place + 1) * size].sum(axis=0)
            for place, (method, _) in enumerate(self.parts)
        }
