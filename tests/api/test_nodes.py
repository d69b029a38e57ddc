"""Nodes and their GPUs over REST."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Gpu, Node
from tests.api.conftest import World, problem_of
from tests.factories import make_deployment, make_gpu, make_node, make_partition


def names(response) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


def test_the_list_tells_each_nodes_status(viewer: APIClient) -> None:
    make_node("ready")
    make_node("silent", last_seen=timezone.now() - timedelta(hours=1))
    make_node("never", last_seen=None)
    make_node("cordoned", schedulable=False)
    make_node("revoked", revoked=True)
    rows = viewer.get("/api/v1/nodes").json()["results"]
    assert {row["name"]: row["status"] for row in rows} == {
        "ready": "ready", "silent": "silent", "never": "never_seen", "cordoned": "cordoned", "revoked": "revoked",
    }  # fmt: skip


def test_nodes_are_found_by_label_and_silence(viewer: APIClient) -> None:
    make_node("a", labels={"rack": "b12", "zone": "east"})
    make_node("b", labels={"rack": "b13"}, last_seen=timezone.now() - timedelta(hours=1))
    make_node("c", last_seen=None)
    assert names(viewer.get("/api/v1/nodes?label=rack=b12")) == ["a"]
    assert names(viewer.get("/api/v1/nodes?label=rack__startswith=b")) == []
    assert names(viewer.get("/api/v1/nodes?silent=true")) == ["b", "c"]
    assert names(viewer.get("/api/v1/nodes?silent=false")) == ["a"]
    assert names(viewer.get("/api/v1/nodes?name=b")) == ["b"]


@pytest.mark.parametrize(
    "query", ["label=rack", "label==x", "silent=perhaps", "ordering=token_hash", "page=0", "page=x"]
)
def test_a_filter_that_makes_no_sense_is_refused(query: str, viewer: APIClient) -> None:
    response = viewer.get(f"/api/v1/nodes?{query}")
    problem_of(response, 404 if query.startswith("page") else 400)


def test_one_node_comes_with_its_gpus_partitions_and_spec(viewer: APIClient, world: World) -> None:
    body = viewer.get(f"/api/v1/nodes/{world.node.pk}").json()
    assert [gpu["index"] for gpu in body["gpus"]] == [0, 1, 2]
    assert {partition["name"]: partition["status"] for partition in body["partitions"]} == {
        "p0": "ready", "p1": "unassigned",
    }  # fmt: skip
    [replica] = body["spec"]["replicas"]
    assert replica["deployment"] == "chat"
    assert replica["api_key"] == "hidden"


def test_only_an_admin_sees_the_secrets_of_a_spec(world: World, as_role) -> None:
    address = f"/api/v1/nodes/{world.node.pk}?secrets=true"
    problem_of(as_role("viewer").get(address), 403)
    problem_of(as_role("operator").get(address), 403)
    [replica] = as_role("admin").get(address).json()["spec"]["replicas"]
    assert replica["api_key"] == world.secrets["engine key"]
    [replica] = as_role("admin").get(f"/api/v1/nodes/{world.node.pk}").json()["spec"]["replicas"]
    assert replica["api_key"] == "hidden", "an admin must ask for them"


def test_labels_are_replaced_and_audited(operator: APIClient, world: World) -> None:
    response = operator.patch(f"/api/v1/nodes/{world.node.pk}", {"labels": {"rack": "b12"}}, format="json")
    assert response.json()["labels"] == {"rack": "b12"}
    event = AuditEvent.objects.latest("id")
    assert (event.verb, event.source, event.after) == ("label", "rest", {"labels": {"rack": "b12"}})


@pytest.mark.parametrize(
    "labels", [[], "rack", {"Rack!": "x"}, {"": "x"}, {"rack": {"deep": 1}}, {"rack": "x" * 121}, {"rack": None},
               {f"k{n}": "v" for n in range(51)}],
)  # fmt: skip
def test_unlawful_labels_are_refused(labels: object, operator: APIClient, world: World) -> None:
    problem_of(operator.patch(f"/api/v1/nodes/{world.node.pk}", {"labels": labels}, format="json"), 400)
    world.node.refresh_from_db()
    assert world.node.labels == {}


def test_labels_must_be_sent(operator: APIClient, world: World) -> None:
    problem_of(operator.patch(f"/api/v1/nodes/{world.node.pk}", {}, format="json"), 400)


@pytest.mark.parametrize(
    ("verb", "status"), [("cordon", "cordoned"), ("drain", "draining"), ("uncordon", "ready"), ("revoke", "revoked")]
)
def test_a_verb_answers_with_the_node_as_it_is_then(verb: str, status: str, admin: APIClient, world: World) -> None:
    response = admin.post(f"/api/v1/nodes/{world.node.pk}/{verb}", {"reason": "rack move"}, format="json")
    assert (response.status_code, response.json()["status"]) == (200, status)


def test_a_drain_tells_how_far_it_is_and_is_cancelled(operator: APIClient, world: World) -> None:
    address = f"/api/v1/nodes/{world.node.pk}"
    drain = operator.post(f"{address}/drain", {"deadline_s": 30}, format="json").json()["drain"]
    assert (drain["partitions_left"], drain["returns_to"]) == (1, "ready")
    assert drain["deadline_at"] - drain["began_at"] == pytest.approx(30, abs=0.01)

    back = operator.post(f"{address}/cancel_drain", {"reason": "not today"}, format="json").json()
    assert (back["status"], back["drain"], back["schedulable"]) == ("ready", None, True)
    assert AuditEvent.objects.latest("id").verb == "cancel-drain"


def test_a_drains_preview_says_where_its_engines_go_and_is_applied_as_it_was_seen(
    operator: APIClient, viewer: APIClient, world: World
) -> None:
    make_partition(make_node("elsewhere", last_seen=timezone.now()), name="spare")
    address = f"/api/v1/nodes/{world.node.pk}/drain"
    seen = viewer.post(f"{address}?dry_run=true", {"move": True, "deadline_s": 60}, format="json")
    assert seen.status_code == 200, seen.content
    [leaving] = seen.json()["leaving"]
    assert (leaving["partition"]["name"], leaving["to"]["name"]) == ("alpha/p0", "elsewhere/spare")
    assert Node.objects.filter(draining=True).count() == 0

    problem_of(operator.post(address, {"move": True}, format="json"), 400)
    body = {"move": True, "deadline_s": 60, "version": seen.json()["version"], "reason": "new fan"}
    made = operator.post(address, body, format="json")
    assert made.status_code == 201, made.content
    change = made.json()
    assert (change["kind"], change["node"], change["state"]) == ("drain", world.node.pk, "running")
    assert [move["partition"]["name"] for move in change["moves"]] == ["elsewhere/spare"]


def test_a_drain_that_finds_no_room_says_why(operator: APIClient, world: World) -> None:
    address = f"/api/v1/nodes/{world.node.pk}/drain"
    seen = operator.post(f"{address}?dry_run=true", {"move": True}, format="json").json()
    assert seen["leaving"][0]["problem"]["code"] == "no-room"
    answer = operator.post(address, {"move": True, "version": seen["version"]}, format="json")
    assert problem_of(answer, 409)["problems"][0]["code"] == "no-room"
    forced = operator.post(address, {"move": True, "version": seen["version"], "force": True}, format="json")
    assert (forced.status_code, forced.json()["draining"]) == (200, True)


@pytest.mark.parametrize("deadline", [-1, "soon", 1e9, [30], "nan"])
def test_a_deadline_that_makes_no_sense_is_refused(deadline: object, operator: APIClient, world: World) -> None:
    answer = operator.post(f"/api/v1/nodes/{world.node.pk}/drain", {"deadline_s": deadline}, format="json")
    problem_of(answer, 400)
    world.node.refresh_from_db()
    assert not world.node.draining


def test_a_cordon_keeps_who_why_and_from_where(operator: APIClient, world: World) -> None:
    operator.post(
        f"/api/v1/nodes/{world.node.pk}/cordon", {"reason": "fan"}, format="json", HTTP_X_REQUEST_ID="ticket-12345"
    )
    event = AuditEvent.objects.latest("id")
    assert (event.verb, event.reason, event.source) == ("cordon", "fan", "rest")
    assert event.request_id == "ticket-12345"
    assert event.actor is not None


def test_a_preset_splits_the_node(operator: APIClient) -> None:
    node = make_node(gpus=8)
    response = operator.post(f"/api/v1/nodes/{node.pk}/split", {"preset": "2x4"}, format="json")
    assert response.status_code == 201, response.content
    assert [[gpu["index"] for gpu in row["gpus"]] for row in response.json()] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_groups_split_the_node(operator: APIClient) -> None:
    node = make_node(gpus=4)
    response = operator.post(f"/api/v1/nodes/{node.pk}/split", {"groups": [[0, 1], [3]]}, format="json")
    assert [[gpu["index"] for gpu in row["gpus"]] for row in response.json()] == [[0, 1], [3]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"preset": "2x1", "groups": [[0]]}, 400),
        ({"preset": "8x1"}, 409),
        ({"groups": [[0], [0]]}, 409),
        ({"groups": [[7]]}, 409),
        ({"groups": []}, 400),
        ({"groups": [[]]}, 400),
        ({"groups": [[-1]]}, 400),
        ({"groups": "0,1"}, 400),
        ({"groups": [[True]]}, 400),
    ],
)
def test_a_split_that_cannot_be_changes_nothing(body: dict, status: int, operator: APIClient) -> None:
    node = make_node(gpus=2)
    problem_of(operator.post(f"/api/v1/nodes/{node.pk}/split", body, format="json"), status)
    assert not node.partitions.exists()


def test_a_plan_splits_and_assigns_at_once(operator: APIClient) -> None:
    node, deployment = make_node(gpus=8), make_deployment()
    body = {"plan": "gpt-oss-120b-4p4d", "deployment": deployment.pk, "reason": "launch"}
    response = operator.post(f"/api/v1/nodes/{node.pk}/plan", body, format="json")
    assert response.status_code == 201, response.content
    assert [row["role"] for row in response.json()] == ["prefill"] * 4 + ["decode"] * 4
    assert {row["deployment"]["id"] for row in response.json()} == {deployment.pk}


def test_a_plan_that_does_not_fit_changes_nothing(operator: APIClient) -> None:
    node, deployment = make_node(gpus=4), make_deployment()
    body = {"plan": "gpt-oss-120b-4p4d", "deployment": deployment.pk}
    problem_of(operator.post(f"/api/v1/nodes/{node.pk}/plan", body, format="json"), 409)
    problem_of(operator.post(f"/api/v1/nodes/{node.pk}/plan", {**body, "plan": "all of it"}, format="json"), 400)
    problem_of(operator.post(f"/api/v1/nodes/{node.pk}/plan", {**body, "deployment": 4711}, format="json"), 404)
    assert not node.partitions.exists()


def test_a_node_in_use_is_not_removed(admin: APIClient, world: World) -> None:
    problem_of(admin.delete(f"/api/v1/nodes/{world.node.pk}"), 409)
    assert Node.objects.filter(pk=world.node.pk).exists()


def test_a_node_is_removed_with_a_reason(admin: APIClient) -> None:
    node = make_node("old", gpus=2)
    assert admin.delete(f"/api/v1/nodes/{node.pk}?reason=sold").status_code == 204
    assert not Node.objects.filter(pk=node.pk).exists()
    assert AuditEvent.objects.get(verb="remove").reason == "sold"


def test_gpus_are_found_by_what_holds_them(viewer: APIClient, world: World) -> None:
    def indices(query: str) -> list[int]:
        response = viewer.get(f"/api/v1/gpus?{query}")
        assert response.status_code == 200, response.content
        return [row["index"] for row in response.json()["results"]]

    make_gpu(make_node("beta"), 9, health="lost", kind="nvidia")
    held = [gpu.index for gpu in world.partition.gpus.all()]
    assert indices("idle=false") == held
    assert set(indices("idle=true")) == {0, 1, 2, 9} - set(held)
    assert indices(f"free=true&node={world.node.pk}") == [world.free_gpu.index]
    assert indices("health=lost") == [9]
    assert indices("kind=nvidia&present=true") == [9]
    problem_of(viewer.get("/api/v1/gpus?node=4711"), 400)


def test_one_gpu_names_its_node_and_partition(viewer: APIClient, world: World) -> None:
    gpu = world.partition.gpus.get()
    body = viewer.get(f"/api/v1/gpus/{gpu.pk}").json()
    assert body["node"] == {"id": world.node.pk, "name": "alpha"}
    assert body["partition"] == {"id": world.partition.pk, "name": "p0"}


def test_only_a_gpu_that_is_gone_is_forgotten(operator: APIClient, world: World) -> None:
    problem_of(operator.delete(f"/api/v1/gpus/{world.free_gpu.pk}"), 409)
    Gpu.objects.filter(pk=world.free_gpu.pk).update(present=False)
    assert operator.delete(f"/api/v1/gpus/{world.free_gpu.pk}").status_code == 204


def test_endpoints_are_for_operators(world: World, as_role) -> None:
    for role, seen in (("viewer", False), ("operator", True), ("admin", True)):
        client = as_role(role)
        row = client.get(f"/api/v1/partitions/{world.partition.pk}").json()
        node = client.get(f"/api/v1/nodes/{world.node.pk}").json()
        replica = client.get(f"/api/v1/replicas/{world.partition.pk}").json()
        endpoints = [row["endpoint"], node["partitions"][0]["endpoint"], replica["endpoint"]]
        assert endpoints == ([world.partition.endpoint] * 3 if seen else [None] * 3)


def test_lists_have_pages(viewer: APIClient) -> None:
    for number in range(5):
        make_node(f"n{number}")
    first = viewer.get("/api/v1/nodes?page_size=2").json()
    assert (first["count"], [row["name"] for row in first["results"]]) == (5, ["n0", "n1"])
    assert names(viewer.get(first["next"])) == ["n2", "n3"]
    assert names(viewer.get("/api/v1/nodes?ordering=-name&page_size=2")) == ["n4", "n3"]
    problem_of(viewer.get("/api/v1/nodes?page=9"), 404)
