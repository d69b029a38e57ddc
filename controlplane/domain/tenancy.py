"""How many GPUs of the pool the models of each team can always have. No rows, no clock.

A floor is a right, not a residence: a team that uses less than it owns keeps no model awake by it, but that many GPUs
are there for its models when they are asked for. Two rules give that. Free slots beyond what others are owed go to
anybody; and nobody's model makes one of another team leave that is within that team's floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.domain.pool import Slot


@dataclass(frozen=True, slots=True)
class Floors:
    """`gpus` and `names` by team, of teams with a floor alone; `owners`: the team of each of their deployments."""

    gpus: Mapping[int, int] = field(default_factory=dict)
    owners: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


NONE = Floors()


@dataclass(frozen=True, slots=True)
class Holdings:
    """The pool at one look: the GPUs that each team's models have, and those of slots that nobody has."""

    floors: Floors
    used: Mapping[int, int]
    free: int

    @classmethod
    def of(cls, floors: Floors, gpus: Mapping[int, int], free: int) -> Holdings:
        """`gpus`: in pool slots, by deployment."""
        used: dict[int, int] = {}
        for deployment, count in gpus.items():
            if (team := floors.owners.get(deployment)) is not None:
                used[team] = used.get(team, 0) + count
        return cls(floors, used, free)

    def is_under(self, deployment: int) -> bool:
        """Whether it is of a team that has less than its floor. The slot that takes it there may be the larger one."""
        team = self.floors.owners.get(deployment)
        return team is not None and self.used.get(team, 0) < self.floors.gpus.get(team, 0)

    def owed(self, *, but: int | None = None) -> int:
        """GPUs that teams may still ask for, without that team's."""
        return sum(max(0, floor - self.used.get(team, 0)) for team, floor in self.floors.gpus.items() if team != but)

    def refusal(self, slot: Slot, deployment: int) -> str:
        """Why that deployment may not have the slot; "" where no floor stands against it."""
        mine = self.floors.owners.get(deployment)
        if slot.resident is None:
            if self.is_under(deployment) or self.free - slot.gpus >= self.owed(but=mine):
                return ""
            return f"the free slots are kept for {self._creditors(mine)}"
        theirs = self.floors.owners.get(slot.resident.deployment)
        if theirs is None or theirs == mine or slot.resident.lent:
            return ""
        left = self.used.get(theirs, 0) - slot.gpus - slot.resident.others_gpus
        if left >= self.floors.gpus.get(theirs, 0):
            return ""
        return f"the rest is within the floor of {self.floors.names.get(theirs, 'another team')}"

    def pair_refusal(self, first: Slot, second: Slot, deployment: int) -> str:
        """The same for two slots at once. What takes a team to its floor may be the larger pair."""
        found = self.refusal(first, deployment) or self.refusal(second, deployment)
        if found or self.is_under(deployment) or _leaves_both(first, second):
            return found
        return self._after(first, deployment).refusal(second, deployment)

    def _after(self, slot: Slot, deployment: int) -> Holdings:
        """Once that deployment has the slot."""
        used, free = dict(self.used), self.free
        if (mine := self.floors.owners.get(deployment)) is not None:
            used[mine] = used.get(mine, 0) + slot.gpus
        if slot.resident is None:
            return Holdings(self.floors, used, free - slot.gpus)
        left = slot.gpus + slot.resident.others_gpus
        if (theirs := self.floors.owners.get(slot.resident.deployment)) is not None and not slot.resident.lent:
            used[theirs] = used.get(theirs, 0) - left
        return Holdings(self.floors, used, free + slot.resident.others_gpus)

    def _creditors(self, but: int | None) -> str:
        found = [
            f"{self.floors.names.get(team, 'a team')} ({self.used.get(team, 0)} of its {floor} GPUs in use)"
            for team, floor in sorted(self.floors.gpus.items())
            if team != but and self.used.get(team, 0) < floor
        ]
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more teams" if len(found) > 3 else "")


def _leaves_both(first: Slot, second: Slot) -> bool:
    """Whether they are the two of one deployment that leaves: then what is said of one holds for both."""
    there = first.resident
    return there is not None and second.resident is not None and there.deployment == second.resident.deployment
