"""Partitions, assignments and replicas over REST."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Node, Partition
from tests.api.conftest import World, problem_of
from tests.factories import make_deployment, make_node, make_partition, make_ready


def test_a_partition_is_made_of_free_gpus(operator: APIClient) -> None:
    node = make_node(gpus=4)
    body = {"node": node.pk, "name": "big", "gpu_indices": [1, 0]}
    response = operator.post("/api/v1/partitions", body, format="json")
    assert response.status_code == 201, response.content
    made = response.json()
    assert (made["name"], made["status"], made["deployment"], made["role"]) == ("big", "unassigned", None, None)
    assert [gpu["index"] for gpu in made["gpus"]] == [0, 1]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"node": 4711}, 404),
        ({"node": "alpha"}, 400),
        ({"node": 2**70}, 400),
        ({"name": "Bad Name"}, 400),
        ({"name": ""}, 400),
        ({"gpu_indices": []}, 400),
        ({"gpu_indices": [0, 0]}, 409),
        ({"gpu_indices": [99]}, 409),
        ({"gpu_indices": None}, 400),
    ],
)
def test_a_partition_that_cannot_be_is_refused(change: dict, status: int, operator: APIClient) -> None:
    node = make_node(gpus=2)
    body = {"node": node.pk, "name": "p0", "gpu_indices": [0], **change}
    problem_of(operator.post("/api/v1/partitions", body, format="json"), status)
    assert not Partition.objects.exists()


def test_a_partition_in_use_is_not_deleted(operator: APIClient, world: World) -> None:
    problem_of(operator.delete(f"/api/v1/partitions/{world.partition.pk}"), 409)
    assert operator.delete(f"/api/v1/partitions/{world.idle.pk}").status_code == 204


def test_assigning_says_what_is_desired_at_once(operator: APIClient, world: World) -> None:
    body = {"deployment": world.deployment.pk, "role": "aggregated", "reason": "more traffic"}
    response = operator.post(f"/api/v1/partitions/{world.idle.pk}/assign", body, format="json")
    assert response.status_code == 200, response.content
    row = response.json()
    assert (row["deployment"]["name"], row["role"], row["status"]) == ("chat", "aggregated", "pending")
    assert row["confirmed"] is False
    event = AuditEvent.objects.latest("id")
    assert (event.verb, event.reason, event.source) == ("assign", "more traffic", "rest")


def test_a_dry_run_tells_the_plan_and_changes_nothing(operator: APIClient, world: World) -> None:
    before = snapshot()
    body = {"deployment": world.deployment.pk, "role": "aggregated"}
    response = operator.post(f"/api/v1/partitions/{world.idle.pk}/assign?dry_run=true", body, format="json")
    assert response.status_code == 200, response.content
    plan = response.json()
    assert plan["before"] == {"deployment": None, "role": None}
    assert plan["after"] == {"deployment": "chat", "role": "aggregated"}
    assert (plan["action"], plan["problems"], plan["generation"]) == ("start", [], world.idle.generation)
    assert plan["fit"]["fits"] is True
    assert plan["fit"]["needed_bytes"] > 0
    assert plan["expected_s"] is None
    assert snapshot() == before


def test_a_dry_run_tells_how_long_it_takes(operator: APIClient, world: World) -> None:
    Partition.objects.filter(deployment=world.deployment).update(ready_after_s=17.5)
    body = {"deployment": world.deployment.pk, "role": "aggregated"}
    plan = operator.post(f"/api/v1/partitions/{world.idle.pk}/assign?dry_run=true", body, format="json").json()
    assert plan["expected_s"] == 17.5


def test_a_dry_run_of_what_is_refused_lists_the_problems_with_200(operator: APIClient, world: World) -> None:
    Node.objects.update(schedulable=False)
    before = snapshot()
    body = {"deployment": world.deployment.pk, "role": "aggregated"}
    address = f"/api/v1/partitions/{world.idle.pk}/assign"
    plan = operator.post(f"{address}?dry_run=true", body, format="json").json()
    assert plan["problems"][0]["message"]
    refusal = problem_of(operator.post(address, body, format="json"), 409)
    assert [entry["code"] for entry in refusal["problems"]] == [problem["code"] for problem in plan["problems"]]
    assert snapshot() == before


def snapshot() -> list:
    """All that an assignment could change."""
    return [
        list(Partition.objects.order_by("pk").values()),
        list(Node.objects.order_by("pk").values()),
        AuditEvent.objects.count(),
    ]


def test_a_dry_run_must_say_true_or_false(operator: APIClient, world: World) -> None:
    body = {"deployment": world.deployment.pk, "role": "aggregated"}
    problem_of(operator.post(f"/api/v1/partitions/{world.idle.pk}/assign?dry_run=maybe", body, format="json"), 400)
    world.idle.refresh_from_db()
    assert world.idle.deployment is None


def test_whoever_was_slower_is_told_who_was_faster_and_when(
    operator: APIClient, world: World, admin: APIClient
) -> None:
    seen = world.idle.generation
    body = {"deployment": world.deployment.pk, "role": "aggregated", "expected_generation": seen}
    address = f"/api/v1/partitions/{world.idle.pk}/assign"
    assert admin.post(address, body, format="json").status_code == 200
    event = AuditEvent.objects.latest("id")
    refusal = problem_of(operator.post(address, {**body, "role": "prefill"}, format="json"), 409)
    assert refusal["type"] == "urn:forebay:problem:conflict"
    assert event.actor_name in refusal["detail"]
    assert f"{event.at:%Y-%m-%d %H:%M}" in refusal["detail"]
    world.idle.refresh_from_db()
    assert world.idle.role == "aggregated"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"deployment": 4711}, 404),
        ({"deployment": None}, 400),
        ({"deployment": "chat"}, 400),
        ({"role": "worker"}, 400),
        ({"role": ""}, 400),
        ({"force": "please"}, 400),
        ({"expected_generation": -1}, 400),
        ({"reason": "x" * 1001}, 400),
        ({"reason": "nul \x00"}, 400),
        ({"rolle": "prefill"}, 400),
    ],
)
def test_an_assignment_that_makes_no_sense_is_refused(
    change: dict, status: int, operator: APIClient, world: World
) -> None:
    body = {"deployment": world.deployment.pk, "role": "aggregated", **change}
    problem_of(operator.post(f"/api/v1/partitions/{world.idle.pk}/assign", body, format="json"), status)
    world.idle.refresh_from_db()
    assert world.idle.deployment is None


def test_a_forceable_problem_says_so_and_force_goes_on(operator: APIClient, world: World) -> None:
    deployment = make_deployment("small", max_aggregated=1)
    make_partition(deployment=deployment, role="aggregated")
    body = {"deployment": deployment.pk, "role": "aggregated"}
    address = f"/api/v1/partitions/{world.idle.pk}/assign"
    [entry] = problem_of(operator.post(address, body, format="json"), 409)["problems"]
    assert (entry["code"], entry["forceable"]) == ("over-maximum", True)
    assert operator.post(address, {**body, "force": True}, format="json").status_code == 200


def test_releasing_takes_the_assignment_away(operator: APIClient, world: World) -> None:
    response = operator.post(f"/api/v1/partitions/{world.partition.pk}/release", {"reason": "night"}, format="json")
    row = response.json()
    assert (row["deployment"], row["role"], row["status"]) == (None, None, "draining")
    assert AuditEvent.objects.latest("id").reason == "night"


def test_a_release_too_is_fenced(operator: APIClient, world: World) -> None:
    body = {"expected_generation": world.partition.generation + 1}
    problem_of(operator.post(f"/api/v1/partitions/{world.partition.pk}/release", body, format="json"), 409)
    world.partition.refresh_from_db()
    assert world.partition.deployment == world.deployment


def test_partitions_are_found_by_what_is_desired_of_them(viewer: APIClient, world: World) -> None:
    def found(query: str) -> list[str]:
        response = viewer.get(f"/api/v1/partitions?{query}")
        assert response.status_code == 200, response.content
        return [row["name"] for row in response.json()["results"]]

    assert found("") == ["p0", "p1"]
    assert found("assigned=true") == ["p0"]
    assert found("assigned=false") == ["p1"]
    assert found("role=aggregated") == found(f"deployment={world.deployment.pk}") == found("phase=ready") == ["p0"]
    assert found("role=prefill") == []
    assert found("ordering=-name") == ["p1", "p0"]


def test_replicas_are_what_runs(viewer: APIClient, world: World) -> None:
    stopped = make_ready(make_partition(world.node, role="prefill"), phase="exited")
    leaving = make_ready(make_partition(world.node), phase="draining", observed_role="decode")
    rows = viewer.get("/api/v1/replicas").json()["results"]
    assert [row["id"] for row in rows] == [world.partition.pk, leaving.pk]
    first, second = rows
    assert (first["role"], first["desired_role"], first["confirmed"]) == ("aggregated", "aggregated", True)
    assert (second["role"], second["desired_role"], second["deployment"]) == ("decode", None, None)
    assert first["logs"] == f"/api/v1/partitions/{world.partition.pk}/logs"
    problem_of(viewer.get(f"/api/v1/replicas/{stopped.pk}"), 404)
    assert [row["id"] for row in viewer.get("/api/v1/replicas?role=decode").json()["results"]] == [leaving.pk]
