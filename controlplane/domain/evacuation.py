"""Where the engines of a node that is to be drained may go: a free partition elsewhere for each, or why there is none.

Those with the fewest places choose first, so that an engine that needs a large partition is not left without one by a
small one that would have fitted anywhere; and one that has chosen gives way where it has another place to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.domain import placement
from controlplane.domain.health import SILENT_AFTER_S
from controlplane.domain.types import DeploymentView, NodeView, PartitionView, Problem, Role
from workers.contract import DeviceKind

Place = tuple[PartitionView, NodeView]
REASONS = 3  # so many different ones are told


@dataclass(frozen=True, slots=True)
class Leaving:
    """An assigned partition of the node, and what it runs."""

    partition: PartitionView
    deployment: DeploymentView
    role: Role
    pooled: bool = False  # in a slot of the pool, to which it was given by the pool


@dataclass(frozen=True, slots=True)
class Relocation:
    source: PartitionView
    target: PartitionView
    reasons: tuple[str, ...]  # what speaks for this place


@dataclass(frozen=True, slots=True)
class Stranded:
    source: PartitionView
    problem: Problem


@dataclass(frozen=True, slots=True)
class Evacuation:
    moves: tuple[Relocation, ...]
    stranded: tuple[Stranded, ...]


def evacuate(
    leaving: Sequence[Leaving],
    places: Sequence[Place],
    *,
    peers: Mapping[str, Sequence[PartitionView]],
    now: float,
    silent_after_s: float = SILENT_AFTER_S,
) -> Evacuation:
    """`places`: partitions of any node; those that are not free, or on a node that leaves, are passed over. `peers`: by
    deployment, its partitions that stay. The same input gives the same answer, in whatever order it comes."""
    gone = {one.partition.node_name for one in leaving}
    free = sorted(
        (place for place in places if place[0].deployment is None and place[0].node_name not in gone),
        key=lambda place: place[0].label,
    )
    search = _Search(free, peers, now, silent_after_s)
    for one in sorted(leaving, key=lambda one: (search.choices(one), -len(one.partition.gpus), one.partition.label)):
        search.settle(one)
    return search.result(leaving)


class _Search:
    """Who sits where so far. Kuhn's augmenting paths: whoever can be seated is, if the others can make room."""

    def __init__(
        self, free: Sequence[Place], peers: Mapping[str, Sequence[PartitionView]], now: float, silent_after_s: float
    ) -> None:
        self._free, self._peers, self._now, self._silent_after_s = free, peers, now, silent_after_s
        self._places = {place[0].id: place for place in free}
        self._ranked: dict[int, list[placement.Candidate]] = {}  # by leaving partition, best first
        self._refused: dict[int, list[Problem]] = {}
        self._owner: dict[int, Leaving] = {}  # by place

    def choices(self, one: Leaving) -> int:
        return len(self._look(one)[0])

    def settle(self, one: Leaving) -> None:
        """Rank with those in mind that have chosen: they spread over the nodes, and pair with each other."""
        self._ranked[one.partition.id], self._refused[one.partition.id] = self._look(one)
        self._seat(one, set())

    def result(self, leaving: Sequence[Leaving]) -> Evacuation:
        moves, stranded = [], []
        seats = {one.partition.id: place for place, one in self._owner.items()}
        for one in sorted(leaving, key=lambda one: one.partition.label):
            place = seats.get(one.partition.id)
            problems = self._refused[one.partition.id] if place is None else self._misfits(one, place)
            if place is None or problems:
                stranded.append(Stranded(one.partition, self._no_room(one, problems)))
                self._owner.pop(place, None) if place is not None else None
                continue
            chosen = next(c for c in self._ranked[one.partition.id] if c.partition.id == place)
            moves.append(Relocation(one.partition, chosen.partition, chosen.reasons))
        return Evacuation(tuple(moves), tuple(stranded))

    def _look(self, one: Leaving) -> tuple[list[placement.Candidate], list[Problem]]:
        suited = [place for place in self._free if not _unlike(one, place[0])]
        ranking = placement.candidates(
            suited, one.deployment, one.role, peers=self._peers_of(one), now=self._now,
            silent_after_s=self._silent_after_s,
        )  # fmt: skip
        unlike = [problem for place in self._free for problem in _unlike(one, place[0])]
        size = len(one.partition.gpus)
        best = sorted(ranking.ranked, key=lambda c: (len(c.partition.gpus) - size, c.partition.has_process))  # stable
        return best, [*(problem for candidate in ranking.refused for problem in candidate.problems), *unlike]

    def _peers_of(self, one: Leaving, *, but: int | None = None) -> list[PartitionView]:
        name = one.deployment.name
        chosen = [
            replace(self._places[place][0], deployment=name, role=other.role)
            for place, other in self._owner.items()
            if other.deployment.name == name and place != but
        ]
        return [*self._peers.get(name, ()), *chosen]

    def _seat(self, one: Leaving, asked: set[int]) -> bool:
        wishes = [candidate.partition.id for candidate in self._ranked[one.partition.id]]
        for place in [p for p in wishes if p not in self._owner] + [p for p in wishes if p in self._owner]:
            if place in asked:
                continue
            asked.add(place)
            if place not in self._owner or self._seat(self._owner[place], asked):
                self._owner[place] = one
                return True
        return False

    def _misfits(self, one: Leaving, place: int) -> list[Problem]:
        """All have chosen: whether its partners, who chose as well, still are partners."""
        partition, node = self._places[place]
        return placement.check(
            partition, one.deployment, one.role, node=node, peers=self._peers_of(one, but=place), now=self._now,
            silent_after_s=self._silent_after_s,
        )  # fmt: skip

    def _no_room(self, one: Leaving, problems: Sequence[Problem]) -> Problem:
        what = f"{one.deployment.name} {one.role.value} of {one.partition.label}"
        if not self._free:
            return _problem(f"There is no room for {what}: no other node has a free partition.")
        if self._ranked[one.partition.id] and not problems:
            return _problem(f"There is no room for {what}: the others of this node take the partitions that fit.")
        told = list(dict.fromkeys(problem.message for problem in problems))
        more = f" And {len(told) - REASONS} more." if len(told) > REASONS else ""
        return _problem(f"There is no room for {what}. {' '.join(told[:REASONS])}{more}")


def _problem(message: str) -> Problem:
    fix = "Free a partition elsewhere, or drain without a replacement for it."
    return Problem("no-room", message, fix, forceable=True)


def _unlike(one: Leaving, target: PartitionView) -> list[Problem]:
    """Less of it, or something else, would not be a replacement, though the engine might start there."""
    source = one.partition
    if _family(source) != _family(target):
        return [Problem("other-kind", f"{target.label} has another kind of device.")]
    if len(target.gpus) < len(source.gpus):
        count = f"{len(target.gpus)} GPU{'' if len(target.gpus) == 1 else 's'}"
        return [Problem("partition-smaller", f"{target.label} has {count}, not {len(source.gpus)}.")]
    if one.pooled != target.pool:
        what = "a pool slot, held for models that are woken" if target.pool else "no slot of the pool"
        return [Problem("other-use", f"{target.label} is {what}.")]
    return []


def _family(partition: PartitionView) -> set[str]:
    own = {DeviceKind.CPU.value, DeviceKind.SIMULATED.value}
    return {str(gpu.kind) if gpu.kind in own else "gpu" for gpu in partition.gpus}
