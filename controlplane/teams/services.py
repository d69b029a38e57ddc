"""Make, change and remove teams."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError

from controlplane.audit.services import Actor, record
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.fleet.models import Deployment
from controlplane.teams.models import DeploymentTeam, Team

FIELDS = ("name", "budget_soft", "budget_hard", "pool_floor")
MOST_GPUS = 100_000
LARGEST = Decimal("999999999999.99")


@transaction.atomic
def create_team(
    *,
    name: str,
    budget_soft: Decimal | None = None,
    budget_hard: Decimal | None = None,
    pool_floor: int = 0,
    deployments: Sequence[str] = (),
    actor: Actor,
) -> Team:
    """`deployments`: names of those whose unused time it pays for; each is one team's at most. `pool_floor`: GPUs."""
    team = Team(name=name.strip(), budget_soft=budget_soft, budget_hard=budget_hard, pool_floor=pool_floor)
    _require_lawful(team, deployments)
    team.save()
    _take(team, deployments)
    record(actor, "create", team, after=_shown(team))
    return team


@transaction.atomic
def change_team(
    team_id: int, *, deployments: Sequence[str] | None = None, actor: Actor, reason: str = "", **values: Any
) -> Team:
    """What is given of FIELDS is changed; `deployments` replaces the whole list."""
    team = Team.objects.select_for_update().filter(pk=team_id).first()
    if team is None:
        raise NotFound("team", team_id)
    before = _shown(team)
    for field in FIELDS:
        setattr(team, field, values.get(field, getattr(team, field)))
    team.name = team.name.strip()
    _require_lawful(team, deployments or ())
    team.save(update_fields=FIELDS)
    if deployments is not None:
        DeploymentTeam.objects.filter(team=team).exclude(deployment__name__in=deployments).delete()
        _take(team, deployments)
    if (after := _shown(team)) != before:
        record(actor, "change", team, before=before, after=after, reason=reason)
    return team


@transaction.atomic
def remove_team(team_id: int, *, actor: Actor, reason: str = "") -> None:
    """Refused while an API key or a figure of usage is the team's."""
    team = Team.objects.select_for_update().filter(pk=team_id).first()
    if team is None:
        raise NotFound("team", team_id)
    before = _shown(team)
    try:
        record(actor, "remove", team, before=before, reason=reason)
        with transaction.atomic():
            team.delete()
    except ProtectedError as error:
        kinds = sorted({str(row._meta.verbose_name_plural) for row in error.protected_objects})
        message = f"{team.name} still has {' and '.join(kinds)}. Nothing was removed."
        fix = "Give its API keys to another team first. A team whose usage is on record stays, so that sums stay true."
        raise Refused([Problem("team-in-use", message, fix)]) from error


def team_named(name: str | None) -> Team | None:
    """None for none; Invalid where there is no such team."""
    if not name:
        return None
    team = Team.objects.filter(name=name).first()
    if team is None:
        raise Invalid([Problem("team", f"There is no team {name}.", "Use a team's name, or make the team first.")])
    return team


def _require_lawful(team: Team, deployments: Sequence[str]) -> None:
    problems = [*_name_problems(team), *_limit_problems(team), *_deployment_problems(team, deployments)]
    if problems:
        raise Invalid(problems)


def _name_problems(team: Team) -> list[Problem]:
    if not team.name or len(team.name) > 120:
        return [Problem("name", "A team needs a name of 1 to 120 characters.", "Name those who share the budget.")]
    if Team.objects.filter(name=team.name).exclude(pk=team.pk).exists():
        return [Problem("name", f"There is a team {team.name} already.", "Choose another name.")]
    return []


def _limit_problems(team: Team) -> list[Problem]:
    found = []
    for field in ("budget_soft", "budget_hard"):
        value = getattr(team, field)
        if value is not None and not (value.is_finite() and 0 <= value <= LARGEST):
            found.append(Problem(field, "A budget is no less than 0.", "Leave it out for no limit."))
    if not 0 <= team.pool_floor <= MOST_GPUS:
        message = f"A floor in the pool is a number of GPUs from 0 to {MOST_GPUS}."
        found.append(Problem("pool_floor", message, "Use 0 for none."))
    if not found and None not in (team.budget_soft, team.budget_hard) and team.budget_soft > team.budget_hard:
        message = "The soft limit is past the hard one: nobody would be told in time."
        found.append(Problem("budget_soft", message, "Make it the smaller of the two."))
    return found


def _deployment_problems(team: Team, names: Sequence[str]) -> list[Problem]:
    known = set(Deployment.objects.filter(name__in=names).values_list("name", flat=True))
    found = []
    if unknown := [name for name in names if name not in known]:
        found.append(Problem("deployments", f"There is no deployment {', '.join(unknown)}.", "Use deployment names."))
    for row in DeploymentTeam.objects.filter(deployment__name__in=names).exclude(team=team.pk):
        message = f"{row.deployment.name} is the team {row.team.name}'s."
        found.append(Problem("deployments", message, "Take it from that team first."))
    return found


def _take(team: Team, names: Sequence[str]) -> None:
    for deployment in Deployment.objects.filter(name__in=names):
        DeploymentTeam.objects.get_or_create(deployment=deployment, defaults={"team": team})


def _shown(team: Team) -> dict[str, Any]:
    return {
        "name": team.name,
        "budget_soft": _plain(team.budget_soft),
        "budget_hard": _plain(team.budget_hard),
        "pool_floor": team.pool_floor,
        "deployments": sorted(team.deployments.values_list("deployment__name", flat=True)),
    }


def _plain(money: Decimal | None) -> str | None:
    return None if money is None else f"{money:.2f}"
