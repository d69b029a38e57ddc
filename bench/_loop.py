"""A pool of slots played through a log in virtual time: who finds a slot, who waits, and how many are held meanwhile.

The pool holds what it is told to at each moment of decision, grows at once for whoever finds no slot, and never has
fewer than there are active models. Who leaves a slot is said by domain.pool, as in the product. Slots are of one size,
and there is always one more to be had: what that costs is what is compared. Nothing here reads ahead."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from controlplane.domain import pool as rules
from controlplane.domain.forecast.activity import Floats, Runs

MIN_RESIDENCE_S = 30.0  # as the product's default


class Found(StrEnum):
    """What an activation found."""

    RESIDENT = "resident"  # its engine, still there from the last time
    FREE = "free"  # an empty slot that was held
    FILLED = "filled"  # a held slot, out of which a model has to go that is no longer active
    COLD = "cold"  # none: the pool had to grow


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: an engine's start, until a model has left its slot, until a slot that was not held is there."""

    start: float
    leave: float
    grow: float

    def wait_s(self, found: Found) -> float:
        before = {Found.FREE: 0.0, Found.FILLED: self.leave, Found.COLD: self.grow}
        return 0.0 if found is Found.RESIDENT else before[found] + self.start


@dataclass(frozen=True, slots=True)
class Policy:
    """`wanted(place)`: slots to hold from the moment of that number on, active models among them. `chances(place)`: by
    model, that it is asked for again soon, as it was known then. `empty`: of the slots held beyond the active models so
    many are emptied ahead of requests (None: all); in the others whoever was there stays until the slot is needed."""

    wanted: Callable[[int], int]
    chances: Callable[[int], Floats] | None = None
    empty: int | None = None


@dataclass(slots=True)
class Played:
    """Of the time that counts. `slot_s`, `used_s`: seconds times slots held, and models active."""

    found: Counter[Found] = field(default_factory=Counter)
    slot_s: float = 0.0
    used_s: float = 0.0

    @property
    def activations(self) -> int:
        return self.found.total()

    @property
    def cold(self) -> float:
        return self.found[Found.COLD] / self.activations if self.activations else 0.0

    def waits_s(self, times: Times) -> Floats:
        """One of each activation, rising."""
        return np.sort(np.repeat([times.wait_s(one) for one in Found], [self.found[one] for one in Found]))


def play(runs: Runs, moments: Floats, policy: Policy, *, since: float, until: float) -> Played:
    """From the first moment of decision on; what counts is what happens in [since, until)."""
    pool, played, at = _Pool(runs, policy), Played(), float(moments[0])
    for now, kind, which in _events(runs, moments, until):
        inside = max(0.0, min(now, until) - max(at, since))
        played.slot_s += inside * len(pool.slots)
        played.used_s += inside * pool.active
        at = now
        if kind == _OVER:
            pool.over(which, now)
        elif kind == _DECIDE:
            pool.decide(which, now)
        elif kind == _BEGIN:
            found = pool.begin(which, now)
            if now >= since:
                played.found[found] += 1
    return played


_OVER, _DECIDE, _BEGIN, _END = range(4)  # in this order where they fall on one moment


def _events(runs: Runs, moments: Floats, until: float) -> Iterator[tuple[float, int, int]]:
    """(when, what, of which model or moment); what began before the first moment begins at it."""
    first = float(moments[0])
    lives = runs.end > first
    start, end, model = np.maximum(runs.start[lives], first), runs.end[lives], runs.model[lives]
    streams = [
        sorted(zip(end.tolist(), [_OVER] * len(end), model.tolist(), strict=True)),
        list(zip(moments.tolist(), [_DECIDE] * len(moments), range(len(moments)), strict=True)),
        sorted(zip(start.tolist(), [_BEGIN] * len(start), model.tolist(), strict=True)),
    ]
    for event in heapq.merge(*streams):
        if event[0] >= until:
            break
        yield event
    yield until, _END, 0


@dataclass(slots=True)
class _Held:
    model: int | None = None
    since: float = 0.0
    over_since: float | None = None  # its keep-alive is; None: its model is active


@dataclass(slots=True)
class _Pool:
    runs: Runs
    policy: Policy
    slots: dict[int, _Held] = field(default_factory=dict)
    of_model: dict[int, int] = field(default_factory=dict)
    active: int = 0
    wanted: int = 0
    place: int = 0
    made: int = 0

    def decide(self, place: int, now: float) -> None:
        self.place, self.wanted = place, self.policy.wanted(place)
        self._settle(now)

    def begin(self, model: int, now: float) -> Found:
        found, slot = self._slot_for(model, now)
        self.slots[slot] = _Held(model, now)
        self.of_model[model] = slot
        self.active += 1
        return found

    def over(self, model: int, now: float) -> None:
        """Its keep-alive is."""
        self.slots[self.of_model[model]].over_since = now
        self.active -= 1
        self._settle(now)

    def _slot_for(self, model: int, now: float) -> tuple[Found, int]:
        if (mine := self.of_model.get(model)) is not None:
            return Found.RESIDENT, mine
        choice = rules.choose(self._views(now), priority=0, min_residence_s=MIN_RESIDENCE_S)
        if choice.slot is None:
            return Found.COLD, self._grow()
        if choice.evicted is None:
            return Found.FREE, choice.slot
        self._empty(choice.slot)
        return Found.FILLED, choice.slot

    def _settle(self, now: float) -> None:
        """Hold as many as are wanted, and no fewer than are active; the empty ones go first, then the least worth."""
        held = max(self.wanted, self.active)
        while len(self.slots) < held:
            self._grow()
        surplus, idle = len(self.slots) - held, len(self.slots) - self.active
        free = idle if self.policy.empty is None else min(idle, surplus + self.policy.empty)
        for choice in rules.to_free(self._views(now), free=free, min_residence_s=MIN_RESIDENCE_S):
            self._empty(choice.slot or 0)
        for slot in [slot for slot, one in self.slots.items() if one.model is None][:surplus]:
            del self.slots[slot]

    def _grow(self) -> int:
        self.made += 1
        self.slots[self.made] = _Held()
        return self.made

    def _empty(self, slot: int) -> None:
        model = self.slots[slot].model
        assert model is not None
        del self.of_model[model]
        self.slots[slot] = _Held()

    def _views(self, now: float) -> list[rules.Slot]:
        """Of those without an active model, for the others are nobody's to take."""
        chances = self.policy.chances(self.place) if self.policy.chances else None
        return [
            rules.Slot(slot, 1, self._resident(one, now, chances))
            for slot, one in self.slots.items()
            if one.model is None or one.over_since is not None
        ]

    def _resident(self, one: _Held, now: float, chances: Floats | None) -> rules.Resident | None:
        if one.model is None:
            return None
        chance = None if chances is None else float(chances[one.model])
        idle_s = self.runs.keep_alive_s + now - (now if one.over_since is None else one.over_since)
        return rules.Resident(one.model, 0, idle_s, now - one.since, self.runs.keep_alive_s, return_chance=chance)
