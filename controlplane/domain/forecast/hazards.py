"""What is learned of each model's habits: how likely an idle one is to wake, by how long it has been idle, and how long
it then stays active. Models that were seldom seen borrow from the whole fleet (empirical Bayes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.forecast.activity import Floats, Ints, Runs

EDGES_S = np.array([0.0, 600.0, 3600.0, 6 * 3600.0])  # of idle age; the last bucket has no end
OWN_WEIGHT_S = 6 * 3600.0  # idle seconds of a model that count as much as the fleet's
POOL = 4096  # durations of the fleet that are kept
DAY_S = 86_400.0
HOURS, PARTS = 24, 12  # of the day; of an hour, five minutes each
LITTLE = 10.0  # activations in a part of the clock that count as much as no habit at all


@dataclass(frozen=True, slots=True)
class Outage:
    """A time of which no requests are on record."""

    start: float
    end: float

    def within(self, start: float, end: float) -> float:
        """Seconds of it that lie there."""
        return max(0.0, min(self.end, end) - max(self.start, start))


@dataclass(frozen=True, slots=True)
class Habits:
    """`enter`: activations per idle second, shape (models, buckets of idle age). `by_clock`: how much more likely in
    five minutes of the day than on the mean, shape (288,). Durations in seconds, keep-alive included, by model."""

    enter: Floats
    by_clock: Floats
    durations: Floats
    first: Ints  # of each model in `durations`, shape (models + 1,)
    pool: Floats  # durations of all models, rising

    @property
    def own(self) -> Ints:
        """How many durations are known of each model."""
        return np.diff(self.first)

    def clock(self, when: Floats) -> Floats:
        """The factor of these moments, shape of `when`."""
        return self.by_clock[(when % DAY_S / (DAY_S / len(self.by_clock))).astype(np.int64) % len(self.by_clock)]


@dataclass(frozen=True, slots=True)
class Now:
    """Each model at one moment, shape (models,)."""

    is_on: NDArray[np.bool_]
    age_s: Floats  # since it became active or idle; infinity: never seen


def learn(runs: Runs, now: float, span_s: float, outages: Sequence[Outage] = ()) -> Habits:
    """From the runs of the last `span_s`. A run that goes on has no duration yet; one that an outage cut short has
    none, and an idle time that may have been none, as an outage lies in it, is not counted."""
    start, end, model = runs.start, runs.end, runs.model
    over = np.isfinite(end) & ~_hidden(end - runs.keep_alive_s, end, outages)
    durations, first = _by_model(model[over], (end - start)[over], runs.count)
    enter = _hazards(*idle_times(runs, now, outages), runs.count)
    pool = np.sort(durations)
    if len(pool) > POOL:
        pool = pool[np.linspace(0, len(pool) - 1, POOL).astype(np.int64)]
    return Habits(enter, _clock(start[start > now - span_s]), durations, first, pool)


def at(runs: Runs, now: float) -> Now:
    """`runs` as known at `now`."""
    last = np.flatnonzero(np.append(runs.model[1:] != runs.model[:-1], True)) if len(runs.model) else np.empty(0, int)
    is_on, age = np.zeros(runs.count, bool), np.full(runs.count, np.inf)
    whose, goes_on = runs.model[last], ~np.isfinite(runs.end[last])
    is_on[whose] = goes_on
    age[whose] = now - np.where(goes_on, runs.start[last], runs.end[last])
    return Now(is_on, np.maximum(age, 0.0))


def returning(habits: Habits, there: Now, now: float, within_s: float) -> Floats:
    """P(each is asked for within that time), shape (models,); one for who is active."""
    bucket = np.clip(np.searchsorted(EDGES_S, there.age_s, side="right") - 1, 0, None)
    rate = habits.enter[np.arange(len(bucket)), bucket] * habits.clock(np.array([now]))[0]
    return np.where(there.is_on, 1.0, 1.0 - np.exp(-rate * within_s))


def idle_times(
    runs: Runs, now: float, outages: Sequence[Outage] = ()
) -> tuple[Floats, Floats, Ints, NDArray[np.bool_]]:
    """(since, until, model, whether it then woke): the gaps between runs, and those that still last. Those that an
    outage lies in may have been none, and are left out."""
    same = runs.model[1:] == runs.model[:-1]
    last = np.append(~same, True) if len(runs.model) else np.empty(0, bool)
    still = last & np.isfinite(runs.end)
    since = np.concatenate([runs.end[:-1][same], runs.end[still]])
    until = np.concatenate([runs.start[1:][same], np.full(int(still.sum()), now)])
    whose = np.concatenate([runs.model[1:][same], runs.model[still]])
    woke = np.concatenate([np.ones(int(same.sum()), bool), np.zeros(int(still.sum()), bool)])
    sure = ~_hidden(since - runs.keep_alive_s, until, outages)
    return since[sure], until[sure], whose[sure], woke[sure]


def _by_model(model: Ints, durations: Floats, count: int) -> tuple[Floats, Ints]:
    order = np.lexsort((durations, model))
    first = np.concatenate([[0], np.cumsum(np.bincount(model, minlength=count))])
    return durations[order], first


def _hidden(start: Floats, end: Floats, outages: Sequence[Outage]) -> NDArray[np.bool_]:
    """Which of these times an outage meets."""
    hidden = np.zeros(len(start), bool)
    for gap in outages:
        hidden |= (start < gap.end) & (end > gap.start)
    return hidden


def _hazards(since: Floats, until: Floats, whose: Ints, woke: NDArray[np.bool_], count: int) -> Floats:
    """Events over exposure by model and bucket, shrunk to the fleet's."""
    buckets = len(EDGES_S)
    exposure, events = np.zeros((count, buckets)), np.zeros((count, buckets))
    length = until - since
    for bucket, low in enumerate(EDGES_S):
        high = EDGES_S[bucket + 1] if bucket + 1 < buckets else np.inf
        exposure[:, bucket] = np.bincount(whose, np.clip(length - low, 0.0, high - low), minlength=count)
        ended = woke & (length >= low) & (length < high)
        events[:, bucket] = np.bincount(whose[ended], minlength=count)
    fleet = (events.sum(0) + 0.5) / (exposure.sum(0) + 3600.0)
    # A model's own pace, whatever the bucket, scales the fleet's curve before its own buckets speak.
    expected = (exposure * fleet).sum(1)
    pace = (events.sum(1) + 1.0) / (expected + 1.0)
    prior = pace[:, None] * fleet
    return np.asarray((events + OWN_WEIGHT_S * prior) / (exposure + OWN_WEIGHT_S))


def _clock(begun: Floats) -> Floats:
    """By hour of the day, smoothed over the neighbours, times by part of the hour, for jobs that start on the hour.
    Both are held near one while little is known."""
    hours = np.bincount((begun % DAY_S // 3600.0).astype(np.int64) % HOURS, minlength=HOURS).astype(np.float64)
    hours = (np.roll(hours, 1) + 2 * hours + np.roll(hours, -1)) / 4
    parts = np.bincount((begun % 3600.0 // (3600.0 / PARTS)).astype(np.int64) % PARTS, minlength=PARTS).astype(
        np.float64
    )
    return np.outer(_factor(hours), _factor(parts)).ravel()


def _factor(counts: Floats) -> Floats:
    return np.asarray((counts + LITTLE) / (counts.mean() + LITTLE))
