"""Changes over REST: previewed, applied, followed, undone; and what a stale plan is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from rest_framework.test import APIClient

from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Change, Deployment, Partition
from tests.api.conftest import make_change, problem_of
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat() -> Deployment:
    return make_deployment("chat")


@pytest.fixture
def parts(chat: Deployment) -> list[Partition]:
    """p0 and p1 prefill, p2 and p3 decode of chat, all ready; p4 idle."""
    node = make_node("alpha")
    roles = ["prefill", "prefill", "decode", "decode"]
    busy = [make_ready(make_partition(node, deployment=chat, role=role, generation=1)) for role in roles]
    return [*busy, make_partition(node)]


def move(partition: Partition, deployment: Deployment | None = None, role: str | None = None) -> dict[str, Any]:
    return {"partition": partition.pk, "deployment": deployment.pk if deployment else None, "role": role}


def post(client: APIClient, path: str, **body: Any) -> Any:
    return client.post(f"/api/v1/{path}", body, format="json")


def preview(client: APIClient, *moves: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = post(client, "changes?dry_run=true", moves=list(moves), **more)
    assert response.status_code == 200, response.content
    return response.json()


def make(client: APIClient, *moves: dict[str, Any], **more: Any) -> dict[str, Any]:
    version = preview(client, *moves)["version"]
    response = post(client, "changes", moves=list(moves), version=version, **more)
    assert response.status_code == 201, response.content
    return response.json()


def confirm_all(client: APIClient, change_id: int) -> dict[str, Any]:
    """All agents do as they are told until the change is at its end."""
    for _ in range(9):
        for row in Partition.objects.exclude(deployment=None):
            make_ready(row)
        Partition.objects.filter(deployment=None).update(phase="")
        services.advance(change_id)
    return client.get(f"/api/v1/changes/{change_id}").json()


def test_a_preview_says_what_would_happen_and_changes_nothing(
    viewer: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    seen = preview(viewer, move(parts[2], chat, "prefill"), move(parts[4], chat, "decode"))
    first, second = seen["moves"]
    assert (first["action"], first["partition"]["name"], first["in_flight"]) == ("relabel", "alpha/p2", None)
    assert first["before"] == {"deployment": {"id": chat.pk, "name": "chat"}, "role": "decode"}
    assert (second["action"], second["before"]) == ("start", {"deployment": None, "role": None})
    assert [step["number"] for step in seen["steps"]] == [1, 2]
    assert {effect["role"]: effect["engines_after"] for effect in seen["effects"]}["prefill"] == 3
    assert seen["problems"] == []
    assert not Change.objects.exists()


def test_a_change_is_applied_followed_and_undone(operator: APIClient, chat: Deployment, parts: list[Partition]) -> None:
    made = make(operator, move(parts[2], chat, "prefill"), reason="long prompts")
    assert (made["state"], made["kind"], made["reason"]) == ("running", "change", "long prompts")
    assert made["steps"][0]["state"] == "running" and made["steps"][0]["progress"]
    assert (made["steps_done"], made["steps_total"], made["undoable"]) == (0, 1, False)
    done = confirm_all(operator, made["id"])
    assert (done["state"], done["undoable"], done["steps"][0]["state"]) == ("done", True, "done")

    undo = f"changes/{made['id']}/undo"
    seen = post(operator, f"{undo}?dry_run=true").json()
    assert seen["moves"][0]["after"]["role"] == "decode"
    response = post(operator, undo, version=seen["version"], reason="worse")
    assert response.status_code == 201
    undone = confirm_all(operator, response.json()["id"])
    assert (undone["kind"], undone["undoes"], undone["state"]) == ("undo", made["id"], "done")
    again = operator.get(f"/api/v1/changes/{made['id']}").json()
    assert (again["undone_by"], again["undoable"]) == (undone["id"], False)
    assert Partition.objects.get(pk=parts[2].pk).role == "decode"
    assert problem_of(post(operator, undo, version=99), 409)["problems"][0]["code"] == "undone"


def test_the_server_chooses_the_partitions_of_a_shift(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    shift = {"deployment": chat.pk, "from_role": "decode", "to_role": "prefill", "gpus": 1}
    seen = post(operator, "changes?dry_run=true", shifts=[shift]).json()
    assert [row["after"]["role"] for row in seen["moves"]] == ["prefill"]
    refused = problem_of(post(operator, "changes?dry_run=true", shifts=[{**shift, "gpus": 7}]), 409)
    assert "Possible: 1, 2" in refused["problems"][0]["fix"]
    made = post(operator, "changes", shifts=[shift], version=seen["version"])
    assert made.status_code == 201, made.content


def test_a_stale_plan_is_told_who_changed_what(
    operator: APIClient, chat: Deployment, parts: list[Partition], actor: Actor
) -> None:
    seen = preview(operator, move(parts[2], chat, "prefill"))
    services.assign(parts[4].pk, deployment_id=chat.pk, role="decode", actor=actor, reason="more tokens")
    body = problem_of(post(operator, "changes", moves=[move(parts[2], chat, "prefill")], version=seen["version"]), 409)
    assert (body["type"], body["code"]) == ("urn:forebay:problem:stale-plan", "stale-plan")
    assert body["problems"][0]["code"] == "stale-plan"
    [change] = body["changes"]
    assert {key: change[key] for key in ("actor", "verb", "subject", "reason")} == {
        "actor": "olga", "verb": "assign", "subject": "alpha/p4", "reason": "more tokens",
    }  # fmt: skip
    assert change["at"]
    assert not Change.objects.exists()


def test_what_others_did_elsewhere_makes_no_plan_stale(
    operator: APIClient, chat: Deployment, parts: list[Partition], actor: Actor
) -> None:
    seen = preview(operator, move(parts[2], chat, "prefill"))
    elsewhere = make_partition(make_node("beta"))
    services.assign(elsewhere.pk, deployment_id=make_deployment("other").pk, role="decode", actor=actor)
    response = post(operator, "changes", moves=[move(parts[2], chat, "prefill")], version=seen["version"])
    assert response.status_code == 201, response.content


def test_nobody_applies_what_was_not_previewed(operator: APIClient, chat: Deployment, parts: list[Partition]) -> None:
    body = problem_of(post(operator, "changes", moves=[move(parts[2], chat, "prefill")]), 400)
    assert body["problems"][0]["field"] == "version"


def test_a_change_that_the_rules_refuse_is_refused_until_forced(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    moves = [move(part) for part in parts[:4]]
    seen = preview(operator, *moves)
    assert "would-stop-serving" in {problem["code"] for problem in seen["problems"]} and seen["forceable"]
    refused = problem_of(post(operator, "changes", moves=moves, version=seen["version"]), 409)
    assert refused["problems"][0]["forceable"]
    assert post(operator, "changes", moves=moves, version=seen["version"], force=True).status_code == 201


def test_a_partition_of_an_open_change_is_left_alone(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    made = make(operator, move(parts[2], chat, "prefill"))
    version = preview(operator, move(parts[2]))["version"]
    body = problem_of(post(operator, "changes", moves=[move(parts[2])], version=version), 409)
    assert f"change {made['id']}" in body["detail"]


def test_a_stopped_change_is_resumed_or_rolled_back(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    made = make(operator, move(parts[2], chat, "prefill"))
    assert problem_of(post(operator, f"changes/{made['id']}/resume"), 409)["problems"][0]["code"] == "not-stopped"
    row = Partition.objects.get(pk=parts[2].pk)
    Partition.objects.filter(pk=row.pk).update(phase="exited", restarts=5, observed_generation=row.generation)
    services.advance(made["id"])
    stopped = operator.get(f"/api/v1/changes/{made['id']}").json()
    assert (stopped["state"], stopped["steps"][0]["state"]) == ("stopped", "failed")
    assert "failed 5 times" in stopped["message"]
    resumed = post(operator, f"changes/{made['id']}/resume", reason="memory was freed").json()
    assert resumed["state"] == "running"
    back = post(operator, f"changes/{made['id']}/rollback", reason="no").json()
    assert (back["state"], back["backwards"]) == ("running", True)
    assert confirm_all(operator, made["id"])["state"] == "rolled_back"
    assert Partition.objects.get(pk=parts[2].pk).role == "decode"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"moves": [{"partition": 1, "deployment": 1}]}, "moves[0].role"),
        ({"moves": [{"partition": 1, "deployment": 1, "role": "writer"}]}, "moves[0].role"),
        ({"moves": [{"partition": 1, "deployment": None, "role": None, "color": "red"}]}, "moves[0].color"),
        ({"shifts": [{"deployment": 1, "from_role": "decode", "to_role": "prefill", "gpus": 0}]}, "shifts[0].gpus"),
        ({"moves": "all"}, "moves"),
    ],
)
def test_what_makes_no_sense_is_named(viewer: APIClient, body: dict[str, Any], field: str) -> None:
    refused = problem_of(viewer.post("/api/v1/changes?dry_run=true", body, format="json"), 400)
    assert refused["problems"][0]["field"] == field


def test_no_moves_and_half_a_move_are_refused(viewer: APIClient, chat: Deployment, parts: list[Partition]) -> None:
    assert problem_of(post(viewer, "changes?dry_run=true"), 400)["problems"][0]["code"] == "moves"
    half = {"partition": parts[0].pk, "deployment": None, "role": "decode"}
    assert problem_of(post(viewer, "changes?dry_run=true", moves=[half]), 400)["problems"][0]["code"] == "half-a-move"


@dataclass(frozen=True)
class Kept:
    """Three changes: 0 of p4 to chat, 1 stopped of p0 to other, 2 undid 0."""

    client: APIClient
    first: int
    parts: list[Partition]
    chat: Deployment
    other: Deployment

    def found(self, query: str) -> list[int]:
        response = self.client.get(f"/api/v1/changes?{query}")
        assert response.status_code == 200, response.content
        return [row["id"] - self.first for row in response.json()["results"]]


@pytest.fixture
def kept(viewer: APIClient, chat: Deployment, parts: list[Partition]) -> Kept:
    other = make_deployment("other")
    first = make_change(parts[4], chat, actor_name="ada")
    make_change(parts[0], other, state="stopped", actor_name="bob")
    make_change(parts[4], other, kind="undo", undoes=first, actor_name="ada")
    return Kept(viewer, first.pk, parts, chat, other)


def test_changes_are_listed_newest_first_and_filtered(kept: Kept) -> None:
    for query, wanted in (
        ("", [2, 1, 0]),
        ("open=true", [1]),
        ("open=false", [2, 0]),
        ("state=stopped", [1]),
        ("kind=undo", [2]),
        ("undoable=true", [2]),
        ("undoable=false", [1, 0]),
        ("actor=ada", [2, 0]),
        (f"partition={kept.parts[4].pk}", [2, 0]),
        (f"partition={kept.parts[0].pk}", [1]),
        (f"deployment={kept.other.pk}", [2, 1]),
        (f"deployment={kept.chat.pk}", [1, 0]),
        ("partition=1.5", []),
        ("page_size=1", [2]),
    ):
        assert kept.found(query) == wanted, query


def test_a_change_that_is_not_there_is_a_404(viewer: APIClient, operator: APIClient) -> None:
    problem_of(viewer.get("/api/v1/changes/7"), 404)
    for verb in ("undo", "resume", "rollback"):
        problem_of(post(operator, f"changes/7/{verb}", **({"version": 0} if verb == "undo" else {})), 404)


def test_the_live_snapshot_has_the_version_and_the_open_changes(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    before = operator.get("/api/v1/live").json()
    assert before["changes"] == []
    made = make(operator, move(parts[2], chat, "prefill"), reason="long prompts")
    live = operator.get("/api/v1/live").json()
    assert live["version"] > before["version"]
    [short] = live["changes"]
    assert short["actor"].startswith("operator-")
    assert {key: value for key, value in short.items() if key != "actor"} == {
        "id": made["id"], "kind": "change", "state": "running", "reason": "long prompts", "message": "",
        "steps_done": 0, "steps_total": 1, "partitions": [parts[2].pk],
    }  # fmt: skip
    confirm_all(operator, made["id"])
    assert operator.get("/api/v1/live").json()["changes"] == []


def test_a_change_that_is_sent_again_with_its_key_is_made_once(
    operator: APIClient, chat: Deployment, parts: list[Partition]
) -> None:
    body = {"moves": [move(parts[2], chat, "prefill")], "version": preview(operator, move(parts[2]))["version"]}
    first, again = (
        operator.post("/api/v1/changes", body, format="json", headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"] and again["Idempotent-Replayed"] == "true"
    assert Change.objects.count() == 1
