"""From the assignments there are to those that are wanted, one safe step at a time.

Safe: no role of a serving deployment is left without a serving engine on the way. What adds capacity comes before what
takes some away. Nothing here knows how a step is carried out; whoever does looks again after each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from workers.contract import Role

Lane = tuple[int, Role]  # a deployment's role
ANSWERS = (Role.DECODE, Role.AGGREGATED)  # roles that answer clients; decode engines do so without prefill as well


@dataclass(frozen=True, slots=True)
class Move:
    """The partition shall have this assignment; both None: none."""

    partition: int
    deployment: int | None
    role: Role | None

    @property
    def lane(self) -> Lane | None:
        return (self.deployment, self.role) if self.deployment is not None and self.role is not None else None


@dataclass(frozen=True, slots=True)
class Place:
    """A partition as it is now. `serving`: requests are sent to it in this role. `lent`: the pool lends it to the
    deployment, and takes it back when it likes."""

    partition: int
    deployment: int | None = None
    role: Role | None = None
    serving: bool = False
    lent: bool = False

    @property
    def lane(self) -> Lane | None:
        return (self.deployment, self.role) if self.deployment is not None and self.role is not None else None

    @property
    def own_lane(self) -> Lane | None:
        """The lane that it counts for: what is lent counts for none, and nobody relies on it."""
        return None if self.lent else self.lane


class Cost(IntEnum):
    """What a step costs those who are served, the least first; `next_step` takes the least."""

    FILL = 0  # an idle partition gets work
    SAFE = 1  # others serve on in the role that it leaves
    LAST = 2  # it leaves a role that shall be empty afterwards
    ROLE_GAP = 3  # no engine in this role until a later step; those of other roles take whole requests meanwhile
    OUTAGE = 4  # nothing serves the deployment until a later step


@dataclass(frozen=True, slots=True)
class Step:
    move: Move
    cost: Cost


@dataclass(frozen=True, slots=True)
class Blocked:
    """Moves are left, and each would stop a deployment from being served. `lanes`: what has no other engine."""

    moves: tuple[Move, ...]
    lanes: tuple[Lane, ...]


def pending(places: Mapping[int, Place], target: Iterable[Move]) -> list[Move]:
    """The moves that are not carried out yet."""
    return [move for move in target if move.lane != places[move.partition].lane]


def next_step(
    places: Mapping[int, Place],
    target: Sequence[Move],
    *,
    quick: Collection[int] = (),
    may_stop: bool = False,
) -> Step | Blocked | None:
    """The next move to make; None when all are made.

    `places`: every partition of the deployments concerned and of the moves. `quick`: partitions whose move costs no
    engine start; among equals they come first. `may_stop`: somebody accepted that a deployment is not served meanwhile.
    """
    left = pending(places, target)
    if not left:
        return None
    final = _final_lanes(places, target)
    rated = [(_cost(move, places, final), move) for move in left]
    bearable = [pair for pair in rated if pair[0] < Cost.OUTAGE or may_stop]
    if not bearable:
        return Blocked(tuple(left), tuple(sorted({lane for move in left if (lane := places[move.partition].own_lane)})))
    cost, move = min(bearable, key=lambda pair: (pair[0], *_order(pair[1], places, quick)))
    return Step(move, cost)


def steps(
    places: Mapping[int, Place], target: Sequence[Move], *, quick: Collection[int] = (), may_stop: bool = True
) -> tuple[list[Step], Blocked | None]:
    """The whole way, if each step succeeds: what a preview shows. The second is what keeps it from its end."""
    now = dict(places)
    taken: list[Step] = []
    while True:
        found = next_step(now, target, quick=quick, may_stop=may_stop)
        if not isinstance(found, Step):
            return taken, found
        taken.append(found)
        move = found.move
        now[move.partition] = Place(move.partition, move.deployment, move.role, serving=move.lane is not None)


def after(places: Mapping[int, Place], target: Iterable[Move]) -> dict[int, Place]:
    """The places once all moves are made and everything assigned serves."""
    made = {move.partition: Place(move.partition, move.deployment, move.role) for move in pending(places, target)}
    return {key: replace(place, serving=place.lane is not None) for key, place in {**places, **made}.items()}


def answers(places: Iterable[Place], deployment: int, *, but: int | None = None) -> bool:
    """Whether engines of its own answer requests for the deployment, without the partition `but`."""
    return any(
        place.serving and (lane := place.own_lane) is not None and lane[0] == deployment and lane[1] in ANSWERS
        and place.partition != but
        for place in places
    )  # fmt: skip


def _final_lanes(places: Mapping[int, Place], target: Iterable[Move]) -> set[Lane]:
    return {lane for place in after(places, target).values() if (lane := place.own_lane)}


def _cost(move: Move, places: Mapping[int, Place], final: set[Lane]) -> Cost:
    place = places[move.partition]
    lane = place.own_lane
    if lane is None:
        return Cost.FILL
    if not place.serving or _others_serve(lane, places, but=move.partition):
        return Cost.SAFE
    deployment = lane[0]
    if not answers(places.values(), deployment):
        return Cost.SAFE  # it is not served as it is
    if answers(places.values(), deployment, but=move.partition):
        return Cost.ROLE_GAP if lane in final else Cost.LAST
    ends = not any(key == deployment and role in ANSWERS for key, role in final)
    return Cost.LAST if ends else Cost.OUTAGE


def _others_serve(lane: Lane, places: Mapping[int, Place], *, but: int) -> bool:
    return any(place.serving and place.own_lane == lane and key != but for key, place in places.items())


def _order(move: Move, places: Mapping[int, Place], quick: Collection[int]) -> tuple[bool, bool, bool, int]:
    """Releases last, relabels before replacements, roles that nobody serves before others; then by number."""
    needs = move.lane is not None and not _others_serve(move.lane, places, but=move.partition)
    return move.lane is None, move.partition not in quick, not needs, move.partition
