"""A token is good for what its scope and its user's role both allow, over REST and the socket alike."""

from __future__ import annotations

import pytest
from knox.models import AuthToken
from rest_framework.test import APIClient

from controlplane.audit import people, roles, tokens
from controlplane.audit.models import AuditEvent, TokenGrant
from controlplane.audit.roles import SCOPES, Level
from controlplane.audit.services import Actor
from controlplane.domain.problems import DomainError
from tests.api.conftest import World, problem_of
from tests.api.test_tokens import ADDRESS, basic, bearing
from tests.factories import make_token, make_user


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("role", roles.ROLES)
def test_the_lesser_of_role_and_scope_decides(role: str, scope: str, world: World) -> None:
    client = bearing(make_token(make_user(role), scope))
    worth = min(roles.ROLES[role], SCOPES[scope])
    me = client.get("/api/v1/me").json()
    assert (me["role"], me["scope"]) == (role, scope)
    assert me["actions"] == sorted(action for action, needed in roles.ACTIONS.items() if worth >= needed)
    assert client.get("/api/v1/nodes").status_code == 200
    cordon = client.post(f"/api/v1/nodes/{world.node.pk}/cordon", {}, format="json")
    assert cordon.status_code == (200 if worth >= Level.OPERATOR else 403)
    assert client.get("/api/v1/keys").status_code == (200 if worth >= Level.ADMIN else 403)
    endpoint = client.get(f"/api/v1/partitions/{world.partition.pk}").json()["endpoint"]
    assert bool(endpoint) is (worth >= Level.OPERATOR), "what only operators see, a reading token does not"


def test_a_refusal_names_the_scope_where_the_role_would_do(world: World) -> None:
    client = bearing(make_token(make_user("admin"), "read"))
    body = problem_of(client.post(f"/api/v1/nodes/{world.node.pk}/cordon", {}, format="json"), 403)
    assert body["detail"] == "This needs a token of scope operate (node.cordon); yours is read."


def test_a_token_without_a_scope_opens_nothing(world: World) -> None:
    plain = make_token(make_user("admin"))
    TokenGrant.objects.all().delete()
    problem_of(bearing(plain).get("/api/v1/nodes"), 403)


def test_a_scope_is_asked_for_and_told(db: None) -> None:
    make_user("operator", username="ada")
    response = APIClient().post(ADDRESS, {"scope": "read", "name": "dashboard"}, format="json", **basic("ada"))
    made = response.json()
    assert (made["scope"], made["name"]) == ("read", "dashboard")
    [shown] = bearing(made["token"]).get(ADDRESS).json()
    assert (shown["scope"], shown["name"]) == ("read", "dashboard")
    assert AuditEvent.objects.get(verb="issue-token").after["scope"] == "read"


def test_without_one_it_is_what_the_role_allows(db: None) -> None:
    make_user("operator", username="ada")
    assert APIClient().post(ADDRESS, {}, format="json", **basic("ada")).json()["scope"] == "operate"


def test_more_than_the_role_is_refused(db: None) -> None:
    make_user("operator", username="ada")
    body = problem_of(APIClient().post(ADDRESS, {"scope": "admin"}, format="json", **basic("ada")), 409)
    assert body["problems"][0]["code"] == "token-scope"
    assert not AuthToken.objects.exists()


def test_a_promotion_does_not_widen_the_tokens_there_are(db: None, actor: Actor) -> None:
    user = make_user("viewer")
    _, plain = tokens.issue(user=user, ttl_s=3600, actor=actor)
    people.set_role(user.pk, role="admin", actor=actor)
    assert bearing(plain).get("/api/v1/me").json()["scope"] == "read"
    problem_of(bearing(plain).get("/api/v1/keys"), 403)


def test_a_demotion_narrows_them_at_once(db: None, actor: Actor) -> None:
    make_user("admin")
    user = make_user("admin")
    _, plain = tokens.issue(user=user, ttl_s=3600, actor=actor)
    assert bearing(plain).get("/api/v1/keys").status_code == 200
    people.set_role(user.pk, role="viewer", actor=actor)
    problem_of(bearing(plain).get("/api/v1/keys"), 403)


def test_who_has_no_role_gets_no_token(db: None, actor: Actor) -> None:
    with pytest.raises(DomainError, match="cannot have a token"):
        tokens.issue(user=make_user(""), ttl_s=3600, actor=actor)
