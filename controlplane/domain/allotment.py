"""Which partitions change hands so that each role has the engines that it shall have: the fewest and mildest moves.
Pure; whether a move is lawful is asked of `fits`, and judged again by the preview of the change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.domain.rollout import Lane, Move


@dataclass(frozen=True, slots=True)
class Place:
    """A partition that may be moved. `lane`: the deployment and role that it has, None where it is free. `in_flight`:
    requests on its engine, None where it is not known."""

    partition: int
    memory_bytes: int
    lane: Lane | None = None
    ready: bool = False
    in_flight: float | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """A role of a deployment that has `count` engines and shall have `wanted`; of which it keeps `least` whoever asks.
    `now`: somebody waits, or soon will."""

    lane: Lane
    count: int
    wanted: int
    why: str
    least: int = 0
    priority: int = 0
    now: bool = False

    @property
    def missing(self) -> int:
        return max(0, self.wanted - self.count)


@dataclass(frozen=True, slots=True)
class Worth:
    """What a thousand requests of a lane cost on a partition, infinite where it cannot keep the objectives; `what` it
    has, for people: GPUs and their price."""

    per_1000: float
    what: str


@dataclass(frozen=True, slots=True)
class Given:
    """A move and why it is made, for people."""

    move: Move
    why: str


@dataclass(frozen=True, slots=True)
class Allotment:
    """`short`: by lane, the engines for which no partition is left."""

    moves: tuple[Given, ...]
    short: Mapping[Lane, int]


def allot(
    wants: Sequence[Want],
    places: Sequence[Place],
    fits: Mapping[Lane, Collection[int]],
    relabels: Collection[tuple[int, Lane]] = (),
    worths: Mapping[tuple[int, Lane], Worth] | None = None,
) -> Allotment:
    """`fits`: the partitions that could run an engine of that lane. `relabels`: where the engine that runs would stay.

    Who lacks engines is served by priority, what is pressing first. It takes, in this order: what another role of its
    own has too many of, free partitions (the cheapest by `worths` where each of them has one, else the smallest that
    holds it), what other deployments have too many of, and of
    deployments of a lower priority those beyond their least. What is left over beyond what is wanted is released."""
    return _Round(wants, places, fits, relabels, worths or {}).run()


@dataclass(slots=True)
class _Round:
    wants: Sequence[Want]
    places: Sequence[Place]
    fits: Mapping[Lane, Collection[int]]
    relabels: Collection[tuple[int, Lane]]
    worths: Mapping[tuple[int, Lane], Worth]
    moves: list[Given] = field(default_factory=list)
    short: Counter[Lane] = field(default_factory=Counter)
    taken: set[int] = field(default_factory=set)
    left: Counter[Lane] = field(default_factory=Counter)  # engines that a lane has after the moves so far

    def run(self) -> Allotment:
        self.left.update({want.lane: want.count for want in self.wants})
        for want in sorted(self.wants, key=lambda want: (-want.priority, not want.now, want.lane)):
            for _ in range(want.missing):
                self._give(want)
        for want in self.wants:
            self._release(want)
        return Allotment(tuple(self.moves), dict(self.short))

    def _give(self, want: Want) -> None:
        able = [place for place in self.places if place.partition in self.fits.get(want.lane, ())]
        able = [place for place in able if place.partition not in self.taken and place.lane != want.lane]
        worths = self._compared(want, able)
        ranked = [(rank, place) for place in able if (rank := self._rank(want, place, worths)) is not None]
        if not ranked:
            self.short[want.lane] += 1
            return
        _, place = min(ranked, key=lambda one: (one[0], one[1].partition))
        self._move(place, want.lane, want.why + _told(place.partition, worths))

    def _compared(self, want: Want, able: Sequence[Place]) -> dict[int, Worth]:
        """Of the free ones among them, {} unless all are known."""
        free = [place.partition for place in able if place.lane is None]
        found = {partition: self.worths.get((partition, want.lane)) for partition in free}
        return {partition: worth for partition, worth in found.items() if worth} if all(found.values()) else {}

    def _rank(self, want: Want, place: Place, worths: Mapping[int, Worth]) -> tuple[float, ...] | None:
        """Smaller is taken sooner; None: it may not be taken."""
        if place.lane is None:
            cost = worths[place.partition].per_1000 if place.partition in worths else 0.0
            return (1.0, cost, float(place.memory_bytes))
        busy = (float(place.ready), float("inf") if place.in_flight is None else place.in_flight)
        owner = self._want(place.lane)
        if owner is None:
            return None
        if self.left[place.lane] > owner.wanted:
            own = place.lane[0] == want.lane[0]
            stays = (place.partition, want.lane) in self.relabels
            return (0.0 if own else 2.0, float(not stays), *busy)
        if owner.priority < want.priority and want.now and self.left[place.lane] > owner.least:
            return (3.0, float(owner.priority), *busy)
        return None

    def _release(self, want: Want) -> None:
        """Those that nobody else took; engines that are not ready first, then those with the least to do."""
        own = [place for place in self.places if place.lane == want.lane and place.partition not in self.taken]
        own.sort(key=lambda place: (place.ready, place.in_flight or 0.0, place.partition))
        for place in own[: max(0, self.left[want.lane] - want.wanted)]:
            self._move(place, None, want.why)

    def _move(self, place: Place, lane: Lane | None, why: str) -> None:
        self.taken.add(place.partition)
        if place.lane is not None:
            self.left[place.lane] -= 1
        if lane is not None:
            self.left[lane] += 1
        deployment, role = lane or (None, None)
        self.moves.append(Given(Move(place.partition, deployment, role), why))

    def _want(self, lane: Lane) -> Want | None:
        return next((want for want in self.wants if want.lane == lane), None)


def _told(taken: int, worths: Mapping[int, Worth]) -> str:
    """Why this one, where others would have cost more."""
    if taken not in worths:
        return ""
    chosen = worths[taken]
    dearer = [worth for worth in worths.values() if worth.per_1000 > chosen.per_1000]
    if not dearer:
        return ""
    other = min(dearer, key=lambda worth: worth.per_1000)
    beside = "would not keep the objectives" if math.isinf(other.per_1000) else f"{other.per_1000:.3g}"
    return f"; on {chosen.what}, {chosen.per_1000:.3g} for 1,000 requests at most load ({other.what}: {beside})"
