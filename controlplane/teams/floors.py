"""What teams can always have of the pool, as the rules take it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Sum

from controlplane.domain.tenancy import NONE, Floors
from controlplane.fleet.models import Partition
from controlplane.fleet.services import slots
from controlplane.teams.models import DeploymentTeam, Team


def read() -> Floors:
    """One query where no team has a floor."""
    teams = list(Team.objects.filter(pool_floor__gt=0).order_by().values_list("pk", "pool_floor", "name"))
    if not teams:
        return NONE
    owners = DeploymentTeam.objects.filter(team__pool_floor__gt=0).values_list("deployment_id", "team_id")
    return Floors({pk: floor for pk, floor, _ in teams}, dict(owners), {pk: name for pk, _, name in teams})


def promised() -> int:
    """GPUs that all floors come to."""
    return Team.objects.aggregate(gpus=Sum("pool_floor"))["gpus"] or 0


@dataclass(frozen=True, slots=True)
class FloorNow:
    """GPUs. `used` may be more than the floor."""

    team: str
    floor: int
    used: int

    @property
    def owed(self) -> int:
        return max(0, self.floor - self.used)


@dataclass(frozen=True, slots=True)
class FloorsNow:
    teams: list[FloorNow]  # by name
    free: int  # GPUs of free slots, on nodes that take engines
    pool: int  # GPUs of all slots

    @property
    def promised(self) -> int:
        return sum(team.floor for team in self.teams)

    @property
    def owed(self) -> int:
        return sum(team.owed for team in self.teams)

    @property
    def lacking(self) -> int:
        """GPUs that teams are owed and that are not free: someone idle leaves for them, if there is one."""
        return max(0, self.owed - self.free)


def look(now: datetime) -> FloorsNow:
    found = slots.holdings(read(), now)
    names, used = found.floors.names, found.used
    teams = [FloorNow(names[pk], floor, used.get(pk, 0)) for pk, floor in found.floors.gpus.items()]
    pool = Partition.objects.filter(pool=True).aggregate(gpus=Count("gpus"))["gpus"]
    return FloorsNow(sorted(teams, key=lambda one: one.team), found.free, pool)
