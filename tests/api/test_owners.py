"""What an admin kept to its owners, by every write that touches it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from rest_framework.test import APIClient

from controlplane.api import permissions
from controlplane.audit import roles
from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Change, Deployment
from tests.api.conftest import World, problem_of
from tests.api.test_permissions import address_of, handlers
from tests.factories import make_token, make_user

# method, route -> a body that would be accepted of anybody who may (or refused by a rule, but not for who asks)
BODIES = {
    ("PATCH", "nodes/{pk}"): {"labels": {"rack": "a"}},
    ("POST", "nodes/{pk}/cordon"): {},
    ("POST", "nodes/{pk}/uncordon"): {},
    ("POST", "nodes/{pk}/drain"): {},
    ("POST", "nodes/{pk}/cancel_drain"): {},
    ("POST", "nodes/{pk}/split"): {"groups": [[0]]},
    ("POST", "nodes/{pk}/plan"): {"plan": "gpt-oss-120b-4p4d", "deployment": "deployment"},
    ("DELETE", "gpus/{pk}"): {},
    ("POST", "nodes/{pk}/qualify"): {},
    ("POST", "nodes/{pk}/weights"): {"model": "model", "wanted": False},
    ("POST", "gpus/{pk}/qualify"): {},
    ("POST", "gpus/{pk}/cancel_qualification"): {},
    ("POST", "gpus/{pk}/accept"): {"reason": "as it is"},
    ("POST", "gpus/{pk}/unaccept"): {},
    ("PATCH", "deployments/{pk}"): {"drain_s": 7},
    ("DELETE", "deployments/{pk}"): {},
    ("POST", "partitions"): {"node": "node", "name": "p9", "gpu_indices": [0]},
    ("PATCH", "partitions/{pk}"): {"pool": True},
    ("DELETE", "partitions/{pk}"): {},
    ("POST", "partitions/{pk}/assign"): {"deployment": "deployment", "role": "decode"},
    ("POST", "partitions/{pk}/release"): {},
    ("POST", "changes"): {"moves": [{"partition": "partition", "deployment": None, "role": None}], "version": 0},
    ("POST", "changes/{pk}/undo"): {"version": 0},
    ("POST", "changes/{pk}/resume"): {},
    ("POST", "changes/{pk}/rollback"): {},
    ("POST", "profiles/{pk}/apply"): {"deployment": "deployment"},
    ("POST", "scaling/plans/{pk}/apply"): {},
}
NEW = {("POST", "deployments")}  # it has no owners yet


@pytest.fixture
def kept(world: World) -> tuple[World, User]:
    """Node and deployment of the world, kept to ana. Its change is as each address needs it."""
    ana = make_user("operator", username="ana")
    for row in (world.node, world.deployment):
        row.restricted = True
        row.save()
        row.owners.add(ana)
    return world, ana


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def send(client: APIClient, method: str, route: str, world: World) -> object:
    ids = {
        "node": world.node.pk,
        "deployment": world.deployment.pk,
        "model": world.model.pk,
        "partition": world.partition.pk,
    }

    def filled(value: object) -> object:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return ids.get(value, value) if isinstance(value, str) else value

    state = {"changes/{pk}/resume": "stopped", "changes/{pk}/rollback": "stopped"}.get(route, "done")
    Change.objects.filter(pk=world.change.pk).update(state=state)
    if route == "changes/{pk}/undo":  # as the change left it
        move = world.change.moves[0]["after"]
        world.idle.deployment_id, world.idle.role = move["deployment"]["id"], move["role"]
        world.idle.save()
    return client.generic(
        method, address_of(route, world), json.dumps(filled(BODIES[method, route])), "application/json"
    )


def test_the_table_has_every_write_that_heeds_owners() -> None:
    found = set()
    for method, route, view, action in handlers():
        instance = view()
        instance.action = action
        if permissions.action_named_by(instance, method) in roles.OWNED:
            found.add((method, route))
    assert found == set(BODIES) | NEW


@pytest.mark.parametrize(("method", "route"), BODIES)
def test_a_write_is_for_owners_and_admins(method: str, route: str, kept: tuple[World, User]) -> None:
    world, ana = kept
    for user, may in ((make_user("operator"), False), (ana, True), (make_user("admin"), True)):
        with transaction.atomic():
            answer = send(client_of(user), method, route, world)
            transaction.set_rollback(True)
        if may:
            assert answer.status_code not in {403, 500}, answer.content
        else:
            told = problem_of(answer, 403)
            assert {entry["code"] for entry in told["problems"]} == {"not-owner"}, told
            assert "Only ana and admins may change" in told["detail"]


@pytest.mark.parametrize(("method", "route"), BODIES)
def test_one_of_the_two_that_is_kept_is_enough(method: str, route: str, kept: tuple[World, User]) -> None:
    world, _ = kept
    world.deployment.restricted = False
    world.deployment.save()
    concerns_node = not route.startswith(("deployments", "profiles"))
    answer = send(client_of(make_user("operator")), method, route, world)
    assert (answer.status_code == 403) is concerns_node, answer.content


def test_a_preview_says_it_before_anybody_types_a_reason(kept: tuple[World, User]) -> None:
    world, ana = kept
    moves = {"moves": [{"partition": world.partition.pk, "deployment": None, "role": None}]}
    asked = {
        "/api/v1/changes?dry_run=true": moves,
        f"/api/v1/nodes/{world.node.pk}/drain?dry_run=true": {},
        f"/api/v1/partitions/{world.partition.pk}/assign?dry_run=true": {
            "deployment": world.deployment.pk, "role": "decode",
        },
    }  # fmt: skip
    for address, body in asked.items():
        for user, told in ((make_user("operator"), True), (ana, False)):
            plan = client_of(user).post(address, body, format="json").json()
            assert ("not-owner" in [problem["code"] for problem in plan["problems"]]) is told, (address, plan)
            assert not (told and plan["forceable"]), "no force makes an owner"


def test_an_owner_s_token_is_worth_its_scope_and_an_admin_s_of_scope_operate_is_no_admin(
    kept: tuple[World, User],
) -> None:
    world, _ = kept
    client = APIClient(headers={"authorization": f"Token {make_token(make_user('admin'), 'operate')}"})
    address = f"/api/v1/nodes/{world.node.pk}/cordon"
    problem_of(client.post(address, {}, format="json"), 403)


def test_owners_are_set_shown_recorded_and_taken_away(world: World, admin: APIClient) -> None:
    make_user("operator", username="ana"), make_user("operator", username="ben")
    address = f"/api/v1/deployments/{world.deployment.pk}"
    assert admin.get(address).json()["owners"] is None
    answer = admin.put(f"{address}/owners", {"owners": ["ben", "ana", "ben"], "reason": "prod"}, format="json")
    assert answer.status_code == 200
    assert answer.json()["owners"] == ["ana", "ben"]
    event = AuditEvent.objects.first()
    assert (event.verb, event.reason) == ("set-owners", "prod")
    assert (event.before, event.after) == ({"owners": None}, {"owners": ["ana", "ben"]})
    assert admin.put(f"{address}/owners", {"owners": None}, format="json").json()["owners"] is None


@pytest.mark.parametrize(
    ("owners", "code"),
    [(["nobody-knows"], "unknown-user"), (["vic"], "role-too-low"), (["ana", "vic"], "role-too-low")],
)
def test_who_could_change_nothing_is_no_owner(owners: list[str], code: str, world: World, admin: APIClient) -> None:
    make_user("viewer", username="vic"), make_user("operator", username="ana")
    told = problem_of(admin.put(f"/api/v1/nodes/{world.node.pk}/owners", {"owners": owners}, format="json"), 400)
    assert [problem["code"] for problem in told["problems"]] == [code]
    world.node.refresh_from_db()
    assert not world.node.restricted


def test_with_its_last_owner_gone_it_is_not_open_to_all(kept: tuple[World, User]) -> None:
    world, ana = kept
    ana.delete()
    answer = send(client_of(make_user("operator")), "PATCH", "deployments/{pk}", world)
    assert "Only admins may change" in problem_of(answer, 403)["detail"]
    assert Deployment.objects.get(pk=world.deployment.pk).drain_s == 120


def test_a_viewer_who_is_an_owner_still_only_looks(kept: tuple[World, User], as_role: Callable[..., APIClient]) -> None:
    world, ana = kept
    ana.groups.clear()
    assert send(client_of(ana), "POST", "nodes/{pk}/cordon", world).status_code == 403
