"""Rolling evaluation without a look ahead: what each method would have held ready, and how that would have gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.blend import pinball
from controlplane.domain.forecast.history import UNKNOWN, History
from controlplane.domain.forecast.methods import Forecaster
from controlplane.domain.forecast.tracker import whole

BUSY = 0.75  # windows whose peak is above this quantile of all are the busy ones


@dataclass(frozen=True, slots=True)
class Score:
    """Of one method, over the judged windows. Arrays are of shape (levels,)."""

    method: str
    windows: int
    levels: Floats
    coverage: Floats  # share of windows with Y <= R
    busy_coverage: Floats
    reserve: Floats  # mean R
    equal_reserve: Floats  # mean R once all are shifted, afterwards, to cover just the level: to compare methods by
    pinball: Floats
    cold: Floats  # of all activations, those that made more models active than R
    held: Floats  # mean of the greater of R and A: slots held, for what is active stays so whatever R says
    used: float  # mean A
    ms_per_decision: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run: `told[name]` of shape (moments, levels), before it is rounded up."""

    history: History
    told: dict[str, Floats]
    scores: list[Score]


def run(
    history: History,
    methods: Iterable[Forecaster],
    levels: Sequence[float],
    *,
    judge_from: float,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Outcome:
    """Ask every method at every moment, in turn; judge the windows that begin from `judge_from` on and are over."""
    asked, wanted = list(methods), np.asarray(levels, np.float64)
    whole = max(0, len(history.moments) - history.lag)
    told = {one.name: np.zeros((whole, len(wanted))) for one in asked}
    spent = dict.fromkeys(told, 0.0)
    for place in range(whole):
        seen = history.seen_at(place)
        for one in asked:
            began = time.perf_counter()
            told[one.name][place] = one.tell(seen)
            spent[one.name] += time.perf_counter() - began
        on_step(place + 1, whole)
    judge = Judge(history, wanted, judge_from)
    scores = [judge.score(one.name, told[one.name], spent[one.name] / max(1, whole) * 1e3) for one in asked]
    return Outcome(history, told, scores + judge.bounds(whole))


@dataclass(frozen=True, slots=True)
class Judge:
    history: History
    levels: Floats
    judge_from: float

    def score(self, name: str, told: Floats, ms_per_decision: float = 0.0) -> Score:
        """`told`: by moment and level, from the history's first moment on."""
        judged = self._judged(len(told))
        reserve, outcome = whole(told[judged]), self.history.peaks[: len(told)][judged].astype(np.float64)
        busy = outcome > np.quantile(outcome, BUSY) if len(outcome) else np.zeros(0, bool)
        covered = outcome[:, None] <= reserve
        return Score(
            method=name,
            windows=len(outcome),
            levels=self.levels,
            coverage=_mean(covered),
            busy_coverage=_mean(covered[busy]),
            reserve=_mean(reserve),
            equal_reserve=at_equal_coverage(told[judged], outcome, self.levels),
            pinball=_mean(pinball(told[judged], outcome, self.levels)),
            cold=self._cold(told),
            held=self._held(whole(told)),
            used=float(self._held(np.zeros((len(told), 1)))[0]),
            ms_per_decision=ms_per_decision,
        )

    def bounds(self, moments: int) -> list[Score]:
        """What needs no forecast, and what no forecast can beat; each the same at every level."""
        peaks = np.maximum(self.history.peaks[:moments], 0).astype(np.float64)
        judged = self._judged(moments)
        most = float(peaks[judged].max()) if judged.any() else 0.0
        wide = np.ones(len(self.levels))
        return [
            self.score("static peak", np.full((moments, len(self.levels)), most)),
            self.score("keep-alive only", np.zeros((moments, len(self.levels)))),
            self.score("clairvoyant", peaks[:, None] * wide),
        ]

    def _judged(self, moments: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        peaks = self.history.peaks[:moments]
        return np.asarray((self.history.moments[:moments] >= self.judge_from) & (peaks != UNKNOWN))

    def _cold(self, told: Floats) -> Floats:
        """An activation is cold when it makes more models active than the reserve of its time."""
        begun, active = self.history.activations.at, self.history.activations.active
        place = np.floor((begun - self.history.start) / self.history.step_s).astype(np.int64)
        inside = (place >= 0) & (place < len(told))
        inside[inside] = self._judged(len(told))[place[inside]]
        return _mean(active[inside][:, None] > whole(told[place[inside]]), 0.0)

    def _held(self, reserve: Floats) -> Floats:
        """Mean over the judged steps of the greater of reserve and active, exact between all changes of either."""
        history, judged = self.history, self._judged(len(reserve))
        if not judged.any():
            return np.full(reserve.shape[1], np.nan)
        edges = np.append(history.moments[: len(reserve)], history.moments[len(reserve) - 1] + history.step_s)
        changes = history.count.time
        times = np.union1d(edges, changes[(changes > edges[0]) & (changes < edges[-1])])
        spans, place = np.diff(times), np.searchsorted(edges, times[:-1], side="right") - 1
        spans = spans * judged[place]
        most = np.maximum(reserve[place], history.count.at(times[:-1])[:, None])
        return np.asarray(spans @ most / spans.sum())


def at_equal_coverage(told: Floats, outcome: Floats, levels: Floats) -> Floats:
    """The mean of what was told, shifted by the constant with which just the level is covered."""
    if not len(outcome):
        return np.full(len(levels), np.nan)
    short = outcome[:, None] - told
    shift = np.array([np.quantile(short[:, place], level, method="higher") for place, level in enumerate(levels)])
    return np.asarray(np.maximum(told + shift, 0.0).mean(axis=0))


def _mean(rows: Floats | np.ndarray[tuple[int, ...], np.dtype[np.bool_]], of_none: float = np.nan) -> Floats:
    return np.asarray(rows.mean(axis=0), np.float64) if len(rows) else np.full(rows.shape[1], of_none)
