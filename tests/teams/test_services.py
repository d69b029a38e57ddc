"""Teams: who shares a budget, whose keys and deployments are whose; each change leaves an audit event."""

from __future__ import annotations

from decimal import Decimal

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.gateway import services as gateway
from controlplane.teams import services
from controlplane.teams.models import DeploymentTeam, Team
from tests.factories import make_deployment

pytestmark = pytest.mark.django_db


def test_a_team_has_its_budget_deployments_and_keys(actor: Actor) -> None:
    make_deployment("tiny")
    team = services.create_team(
        name=" search ", budget_soft=Decimal(80), budget_hard=Decimal(100), deployments=["tiny"], actor=actor
    )
    assert (team.name, team.deployments.get().deployment.name) == ("search", "tiny")
    key, _ = gateway.create_key(name="bot", team="search", actor=actor)
    assert list(team.keys.all()) == [key]
    events = AuditEvent.objects.order_by("id").values_list("verb", "subject_type", "after")
    assert [event[:2] for event in events] == [("create", "team"), ("create", "apikey")]
    assert events[0][2] == {
        "name": "search", "budget_soft": "80.00", "budget_hard": "100.00", "pool_floor": 0, "deployments": ["tiny"],
    }  # fmt: skip
    assert events[1][2]["team"] == "search"


def test_what_is_given_of_a_team_changes_and_nothing_else(actor: Actor) -> None:
    make_deployment("a")
    make_deployment("b")
    team = services.create_team(name="search", budget_soft=Decimal(80), deployments=["a"], actor=actor)
    services.change_team(team.pk, budget_hard=Decimal(90), actor=actor)
    services.change_team(team.pk, deployments=["b"], reason="moved", actor=actor)
    services.change_team(team.pk, deployments=["b"], actor=actor)  # as it was: no event
    team.refresh_from_db()
    assert (team.budget_soft, team.budget_hard) == (80, 90)
    assert [row.deployment.name for row in team.deployments.all()] == ["b"]
    assert AuditEvent.objects.count() == 3
    assert AuditEvent.objects.latest("id").reason == "moved"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "taken"}, "name"),
        ({"name": "a", "budget_soft": Decimal(-1)}, "budget_soft"),
        ({"name": "a", "budget_hard": Decimal("NaN")}, "budget_hard"),
        ({"name": "a", "budget_soft": Decimal(2), "budget_hard": Decimal(1)}, "budget_soft"),
        ({"name": "a", "deployments": ["no-such"]}, "deployments"),
        ({"name": "a", "deployments": ["theirs"]}, "deployments"),
    ],
)
def test_a_team_that_makes_no_sense_is_refused(actor: Actor, wrong: dict[str, object], field: str) -> None:
    make_deployment("theirs")
    services.create_team(name="taken", deployments=["theirs"], actor=actor)
    with pytest.raises(Invalid) as refused:
        services.create_team(**wrong, actor=actor)
    [problem] = refused.value.problems
    assert problem.code == field and problem.fix
    assert Team.objects.count() == 1


def test_a_team_with_keys_stays_until_they_are_given_away(actor: Actor) -> None:
    make_deployment("tiny")
    team = services.create_team(name="search", deployments=["tiny"], actor=actor)
    key, _ = gateway.create_key(name="bot", team="search", actor=actor)
    with pytest.raises(Refused, match="still has API keys"):
        services.remove_team(team.pk, actor=actor)
    gateway.give_to_team(key.pk, team=None, reason="leaves", actor=actor)
    services.remove_team(team.pk, actor=actor)
    assert not Team.objects.exists() and not DeploymentTeam.objects.exists()
    verbs = AuditEvent.objects.order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["create", "create", "change", "remove"]


def test_a_team_or_key_that_is_not_there_is_told(actor: Actor) -> None:
    with pytest.raises(NotFound):
        services.change_team(4711, name="x", actor=actor)
    with pytest.raises(NotFound):
        services.remove_team(4711, actor=actor)
    with pytest.raises(NotFound):
        gateway.give_to_team(4711, team=None, actor=actor)
    with pytest.raises(Invalid, match="no team nobody"):
        gateway.create_key(name="bot", team="nobody", actor=actor)
