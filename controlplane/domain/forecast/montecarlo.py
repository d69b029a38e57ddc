"""Plays the next horizon many times over: who is active now goes on for a while, who is idle may wake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.forecast.activity import Floats, Ints, Runs
from controlplane.domain.forecast.hazards import DAY_S, EDGES_S, Habits, Now, at, learn
from controlplane.domain.forecast.history import History, Seen

DRAWS = 100_000  # model lives per decision, spread over the models
LEAST, MOST = 64, 320  # plays
LONG_S = 7200.0  # over longer horizons a life costs more, and fewer are played
CELL_S = 10.0  # in which overlaps are counted
FEWEST, FINEST = 30, 120  # cells of a horizon
TURNS = 500  # that a model may wake within a horizon
LEARN_EVERY_S = 3600.0
SPAN_S = 7 * DAY_S
UNHEARD_S = 60.0  # that a model stays active of which, as of the whole fleet, no run has ended yet
FEW = 4  # own durations that are longer than a run already lasts: with fewer, the fleet's are asked too


@dataclass(slots=True)
class MonteCarlo:
    """The reference: conditioned on who is active, since when, and how long the others have been idle.

    A horizon is played once for all models and for parts of them, as those of one size, which may have models in
    common: `parts` has the places of each one's, and `of` names the plays that a part is read off, and which it is
    there."""

    name: str = "Monte Carlo, idle age"
    seed: int = 7
    parts: tuple[Ints, ...] = ()
    of: tuple[MonteCarlo, int] | None = None
    kept: dict[float, Floats] = field(default_factory=dict)  # by moment: Y by part and play; to be cleared by who reads
    _habits: Habits | None = None
    _learned_at: float = -np.inf
    _learned: int = -1  # the place of that moment
    _played: tuple[int, Floats] = field(default_factory=lambda: (-1, np.empty(0)))

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        return np.quantile(self.peaks(seen), levels, method="higher")

    def peaks(self, seen: Seen) -> Floats:
        """Y of each play, shape (plays,). Asked twice in one moment, it says the same."""
        if self._played[0] == seen.place:
            return self._played[1]
        if self.of is not None and (found := self.of[0].kept.get(seen.now)) is not None:
            self._played = (seen.place, found[self.of[1]])
            return self._played[1]
        runs = seen.runs(SPAN_S)
        habits = self._habits
        if habits is None or seen.now - self._learned_at >= LEARN_EVERY_S:
            habits = self._learn(seen, runs)
        random = np.random.default_rng([self.seed, seen.place])
        state = at(runs, seen.sighted)
        group, within = _groups(self.parts, len(state.is_on))
        active = play(habits, state, now=seen.now, horizon_s=seen.horizon_s, random=random, group=group)
        if self.parts:
            self.kept[seen.now] = np.array([active[one].sum(axis=0).max(axis=1) for one in within], np.float64)
        self._played = (seen.place, active.sum(axis=0).max(axis=1).astype(np.float64))
        return self._played[1]

    def joined(self, history: History) -> None:
        """From here on it is asked of this history, which has models that nobody had asked for before: what was learned
        is learned again as of the same moment, for all of them."""
        self._played, self.kept = (-1, np.empty(0)), {}
        if self._habits is not None:
            seen = history.seen_at(self._learned)
            self._learn(seen, seen.runs(SPAN_S))

    def _learn(self, seen: Seen, runs: Runs) -> Habits:
        self._habits = learn(runs, seen.sighted, SPAN_S, seen.outages)
        self._learned_at, self._learned = seen.now, seen.place
        return self._habits


def _groups(parts: Sequence[Ints], count: int) -> tuple[Ints, NDArray[np.bool_]]:
    """(group of each model, which groups each part has): those that are in the same parts are counted together."""
    if not parts or not count:
        return np.zeros(count, np.int64), np.ones((len(parts), 1), bool)
    mine = np.zeros((count, len(parts)), bool)
    for number, places in enumerate(parts):
        mine[places, number] = True
    rows, group = np.unique(mine, axis=0, return_inverse=True)
    return np.asarray(group, np.int64).ravel(), rows.T


def play(
    habits: Habits,
    state: Now,
    *,
    now: float,
    horizon_s: float,
    random: np.random.Generator,
    group: Ints,
) -> Ints:
    """Active models in each cell of the horizon, shape (groups, plays, cells); `group`: in which each model is."""
    models = np.flatnonzero(np.isfinite(state.age_s))  # who was never seen cannot be told of
    lives = DRAWS / max(1.0, horizon_s / LONG_S)
    plays = int(np.clip(lives // max(1, len(models)), LEAST, MOST))
    cells = int(np.clip(horizon_s / CELL_S, FEWEST, FINEST))
    tally = _Tally(plays, cells, cells / horizon_s, group)

    on, idle = models[state.is_on[models]], models[~state.is_on[models]]
    who, turn = np.repeat(on, plays), np.tile(np.arange(plays), len(on))
    left = _rest(habits, on, state.age_s[on], plays, random)
    tally.add(who, turn, np.zeros(len(who)), left)
    who = np.concatenate([who, np.repeat(idle, plays)])
    turn = np.concatenate([turn, np.tile(np.arange(plays), len(idle))])
    since = np.concatenate([left, np.zeros(len(idle) * plays)])
    age = np.concatenate([np.zeros(len(on) * plays), np.repeat(state.age_s[idle], plays)])
    _wake(habits, tally, (who, turn, since, age), now=now, horizon_s=horizon_s, random=random)
    return tally.active()


def _wake(
    habits: Habits,
    tally: _Tally,
    idle: tuple[Ints, Ints, Floats, Floats],
    *,
    now: float,
    horizon_s: float,
    random: np.random.Generator,
) -> None:
    """From (who, play, idle from this second of the horizon on, having been idle so long before) to the end. Hazards
    that change with the clock are met by thinning: waking at the greatest rate, accepted at the share of the hour."""
    who, turn, since, age = idle
    most = float(habits.by_clock.max())
    for _ in range(TURNS):
        inside = since < horizon_s
        who, turn, since, age = who[inside], turn[inside], since[inside], age[inside]
        waited, woke = _wait(habits, who, age, horizon_s - since, factor=most, random=random)
        who, turn, since, age = who[woke], turn[woke], since[woke] + waited, age[woke] + waited
        if not len(who):
            return
        real = random.random(len(who)) * most < habits.clock(now + since)
        stay = np.where(real, _stay(habits, who, random), 0.0)
        tally.add(who[real], turn[real], since[real], since[real] + stay[real])
        since, age = since + stay, np.where(real, 0.0, age)


@dataclass(slots=True)
class _Tally:
    """Who is active in which cell, as steps up and down."""

    plays: int
    cells: int
    per_s: float
    group: Ints
    change: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.change = np.zeros((int(self.group.max(initial=0)) + 1) * self.plays * (self.cells + 1))

    def add(self, who: Ints, turn: Ints, begin_s: Floats, end_s: Floats) -> None:
        row = (self.group[who] * self.plays + turn) * (self.cells + 1)
        first = (begin_s * self.per_s).astype(np.int64)
        last = np.maximum(np.minimum(np.ceil(end_s * self.per_s), self.cells).astype(np.int64), first + 1)
        self.change += np.bincount(row + first, minlength=len(self.change))
        self.change -= np.bincount(row + last, minlength=len(self.change))

    def active(self) -> Ints:
        steps = self.change.reshape(-1, self.plays, self.cells + 1)
        return np.cumsum(steps, axis=2)[:, :, : self.cells].astype(np.int64)


def _wait(
    habits: Habits, who: Ints, age: Floats, room_s: Floats, *, factor: float, random: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """(seconds until each of those wakes who wakes within its room, which of all they are), by inversion of the
    cumulative hazard from the idle age on."""
    upper = np.append(EDGES_S[1:], np.inf)
    need = random.exponential(size=len(who)) / factor
    # Most sleep on: only those go the long way whose greatest hazard would wake them.
    woke = need < habits.enter[who].max(axis=1, initial=0.0) * room_s
    who, age, room_s, need = who[woke], age[woke], room_s[woke], need[woke]
    waited, done = np.full(len(who), np.inf), np.zeros(len(who))
    for bucket, high in enumerate(upper):
        rate = np.maximum(habits.enter[who, bucket], 1e-12)
        span = np.clip(high - np.maximum(age, EDGES_S[bucket]), 0.0, room_s)
        ends = np.isinf(waited) & (need < rate * span)
        waited[ends] = done[ends] + need[ends] / rate[ends]
        need, done = need - rate * span, done + span
    inside = waited < room_s
    woke[np.flatnonzero(woke)] = inside
    return waited[inside], woke


def _stay(habits: Habits, who: Ints, random: np.random.Generator) -> Floats:
    """Seconds that each stays active: one of its own durations, or of the fleet's where it has few."""
    own = habits.own[who]
    mine = random.random(len(who)) * (own + 3.0) < own
    place = (random.random(len(who)) * np.maximum(own, 1)).astype(np.int64)
    drawn = _take(habits.pool, (random.random(len(who)) * max(1, len(habits.pool))).astype(np.int64))
    return np.where(mine, _take(habits.durations, habits.first[who] + place), drawn)


def _rest(habits: Habits, on: Ints, age_s: Floats, plays: int, random: np.random.Generator) -> Floats:
    """Seconds that each active model stays so, shape (models * plays,): of its own durations, one longer than it lasts
    already; with few such, of the fleet's too; with none, as long again as it has lasted, with a heavy tail."""
    begin = np.array(
        [
            low + np.searchsorted(habits.durations[low:high], age)
            for low, high, age in zip(habits.first[on], habits.first[on + 1], age_s, strict=True)
        ],
        np.int64,
    )
    own = habits.first[on + 1] - begin
    beyond = np.searchsorted(habits.pool, age_s)
    common = np.where(own < FEW, len(habits.pool) - beyond, 0)
    weigh_own, weigh_common = own.astype(float), np.minimum(common, FEW).astype(float)
    shape = (len(on), plays)
    pick, where = random.random(shape), random.random(shape)
    mine = pick * (weigh_own + weigh_common)[:, None] < weigh_own[:, None]
    from_own = _take(habits.durations, begin[:, None] + (where * own[:, None]).astype(np.int64))
    from_pool = _take(habits.pool, beyond[:, None] + (where * common[:, None]).astype(np.int64))
    left = np.where(mine, from_own, from_pool) - age_s[:, None]
    unheard = (own + common) == 0
    left[unheard] = random.pareto(1.0, (int(unheard.sum()), plays)) * np.maximum(age_s[unheard], UNHEARD_S)[:, None]
    return np.maximum(left, 1.0).ravel()


def _take(values: Floats, places: Ints) -> Floats:
    return values[np.minimum(places, len(values) - 1)] if len(values) else np.full(places.shape, UNHEARD_S)
