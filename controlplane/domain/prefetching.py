"""Which models' weights are worth having on which nodes before anybody asks for them. No rows, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST = 0.05  # no model that is asked for less likely than that is worth a download
COPIES = 2  # nodes that hold a model, so that one without a free slot is no harm
STAYS = 1.25  # what is wanted already counts as so much likelier: a hair's breadth moves no gigabytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """`bytes` of its weights. `chance`: that it is asked for within the hours that are looked ahead. `fits`: nodes with
    a slot that holds it."""

    model: int
    bytes: int
    chance: float
    fits: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """A node. `room_bytes`: what may be fetched there in all, without what people want there. `wishes`: how many more
    models it may be asked for. `wanted`: models that it was asked for by forecast already. `asked`: those that people
    want there. `free`: models that lie there without having been fetched: they take no room."""

    node: int
    room_bytes: int
    wishes: int
    wanted: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    free: frozenset[int] = frozenset()


def likely_enough(chances: Mapping[int, float], wanted: Collection[int], most: int) -> dict[int, float]:
    """By model, the likeliest ones, at most so many. What is wanted already stays until it is half as likely."""
    found = {model: chance for model, chance in chances.items() if chance >= (LEAST / 2 if model in wanted else LEAST)}
    ranked = sorted(found, key=lambda model: (-_weight(found[model], model in wanted), model))
    return {model: found[model] for model in ranked[:most]}


def choose(candidates: Iterable[Candidate], places: Sequence[Place]) -> dict[int, dict[int, float]]:
    """By node the models to have there, each with its chance. The likeliest comes first: what a download costs the one
    who waits for it grows with its bytes, as the room that it takes does, so a byte is worth the chance. A model goes
    where it lies or is wanted already, else where the most room is left; on fewer nodes than COPIES where no more have
    room. Nodes where people want it count as having it."""
    rooms = {place.node: _Room(place, place.room_bytes, place.wishes, {}) for place in places}
    wanted = {model for place in places for model in place.wanted}
    for one in sorted(candidates, key=lambda one: (-_weight(one.chance, one.model in wanted), one.model)):
        fitting = [rooms[node] for node in sorted(one.fits & rooms.keys())]
        copies = sum(one.model in room.place.asked for room in fitting)
        for room in sorted(fitting, key=lambda room: room.rank(one)):
            if copies >= COPIES:
                break
            copies += room.take(one)
    return {node: room.chosen for node, room in rooms.items()}


@dataclass(slots=True)
class _Room:
    place: Place
    left: int
    wishes: int
    chosen: dict[int, float]

    def rank(self, one: Candidate) -> tuple[bool, bool, int]:
        return one.model not in self.place.free, one.model not in self.place.wanted, -self.left

    def take(self, one: Candidate) -> bool:
        needed = 0 if one.model in self.place.free else one.bytes
        if one.model in self.place.asked or self.wishes <= 0 or needed > self.left:
            return False
        self.chosen[one.model] = one.chance
        self.left, self.wishes = self.left - needed, self.wishes - 1
        return True


def _weight(chance: float, is_wanted: bool) -> float:
    return chance * STAYS if is_wanted else chance
