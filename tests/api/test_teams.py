"""Teams over REST."""

from __future__ import annotations

from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from tests.api.conftest import World, problem_of


def test_a_team_is_made_changed_given_a_key_and_removed(admin: APIClient, world: World) -> None:
    body = {"name": "billing", "budget_soft": 80, "budget_hard": 100.5, "pool_floor": 2}
    made = admin.post("/api/v1/teams", body, format="json")
    assert made.status_code == 201, made.content
    team = made.json()
    assert (team["budget_soft"], team["budget_hard"], team["deployments"], team["keys"]) == (80, 100.5, [], 0)
    assert team["pool_floor"] == 2
    address = f"/api/v1/teams/{team['id']}"
    assert admin.patch(address, {"budget_hard": None, "reason": "agreed"}, format="json").json()["budget_hard"] is None
    key = f"/api/v1/keys/{world.key.pk}/team"
    assert admin.put(key, {"team": "billing"}, format="json").json()["team"] == "billing"
    assert admin.get("/api/v1/teams?name=billing").json()["results"][0]["keys"] == 1
    assert "still has API keys" in str(problem_of(admin.delete(address), 409))
    assert admin.put(key, {"team": None}, format="json").json()["team"] is None
    assert admin.delete(f"{address}?reason=merged").status_code == 204
    assert AuditEvent.objects.latest("id").reason == "merged"
    problem_of(admin.get(address), 404)


def test_a_deployment_is_one_teams_at_most(admin: APIClient, world: World) -> None:
    refusal = problem_of(admin.post("/api/v1/teams", {"name": "other", "deployments": ["chat"]}, format="json"), 400)
    assert "chat is the team search's." in str(refusal)
