"""Registering models and making deployments over REST."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Deployment, Partition, RegisteredModel
from tests.api.conftest import World, problem_of
from tests.factories import SMOLLM2, make_model, make_node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a config and one small file of weights, header and all."""
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    return tmp_path


def test_a_folder_is_registered_with_its_facts(operator: APIClient, folder: Path) -> None:
    response = operator.post("/api/v1/models", {"name": "smollm2", "source": str(folder)}, format="json")
    assert response.status_code == 201, response.content
    body = response.json()
    assert (body["kind"], body["source"]) == ("folder", str(folder))
    facts = body["facts"]
    assert (facts["layers"], facts["heads"], facts["kv_heads"], facts["head_dim"]) == (30, 9, 3, 64)
    assert facts["parameter_bytes"] == 16
    assert AuditEvent.objects.latest("id").verb == "register"


def test_a_repository_that_is_not_here_is_registered_with_unknown_facts(
    operator: APIClient, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    response = operator.post("/api/v1/models", {"name": "oss", "source": "openai/gpt-oss-120b"}, format="json")
    body = response.json()
    assert (response.status_code, body["kind"], body["facts"]["layers"]) == (201, "huggingface", 0)
    assert body["facts"]["warnings"]


def test_a_dry_run_reads_the_facts_and_the_fit_and_saves_nothing(operator: APIClient, folder: Path) -> None:
    make_node(gpus=2)
    response = operator.post("/api/v1/models?dry_run=true", {"name": "smollm2", "source": str(folder)}, format="json")
    assert response.status_code == 200, response.content
    body = response.json()
    assert body["facts"]["layers"] == 30
    [kind] = body["fits"]
    assert (kind["gpus"], kind["fit"]["fits"]) == (2, True)
    assert not RegisteredModel.objects.exists()
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "", "source": "/tmp"},
        {"name": "x", "source": "/nowhere/at/all"},
        {"name": "x", "source": "../etc"},
        {"name": "x", "source": "~/models"},
        {"name": "x", "source": "a/b/c"},
        {"name": "bad name", "source": "openai/gpt-oss-120b"},
        {"name": "x", "source": "openai/gpt-oss-120b", "revision": "../../etc"},
        {"name": "x", "source": "openai/gpt-oss-120b", "facts": {"layers": 1}},
        {"name": ["x"], "source": "openai/gpt-oss-120b"},
    ],
)
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_what_names_no_model_is_refused(body: dict, query: str, operator: APIClient) -> None:
    problem_of(operator.post(f"/api/v1/models{query}", body, format="json"), 400)
    assert not RegisteredModel.objects.exists()


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_name_is_given_once(query: str, operator: APIClient, world: World, folder: Path) -> None:
    response = operator.post(f"/api/v1/models{query}", {"name": world.model.name, "source": str(folder)}, format="json")
    assert problem_of(response, 409)["problems"][0]["code"] == "model-exists"


def test_the_fit_is_told_for_each_kind_of_gpu(viewer: APIClient, world: World) -> None:
    response = viewer.get(f"/api/v1/models/{world.model.pk}/fit?tp=1&concurrency=4&context_tokens=2048")
    assert response.status_code == 200, response.content
    [kind] = response.json()["fits"]
    assert (kind["kind"], kind["gpus"]) == ("simulated", 3)
    assert kind["fit"]["concurrency"] == 4
    assert kind["fit"]["kv_bytes"] == 4 * 2048 * 30 * 2 * 3 * 64 * 2


@pytest.mark.parametrize("query", ["tp=0", "tp=two", "utilization=2", "concurrency=-1", "context_tokens=0", "gpus=8"])
def test_a_fit_that_makes_no_sense_is_refused(query: str, viewer: APIClient, world: World) -> None:
    problem_of(viewer.get(f"/api/v1/models/{world.model.pk}/fit?{query}"), 400)


def test_a_model_that_is_served_is_not_deleted(operator: APIClient, world: World) -> None:
    problem_of(operator.delete(f"/api/v1/models/{world.model.pk}"), 409)
    unused = make_model()
    assert operator.delete(f"/api/v1/models/{unused.pk}").status_code == 204


def test_a_model_lists_what_serves_it(viewer: APIClient, world: World) -> None:
    body = viewer.get(f"/api/v1/models/{world.model.pk}").json()
    assert body["deployments"] == [{"id": world.deployment.pk, "name": "chat"}]


def test_a_deployment_is_made_with_defaults(operator: APIClient, world: World) -> None:
    body = {"name": "other", "model": world.model.pk, "aliases": ["alt"], "slo_ttft_ms": 500}
    response = operator.post("/api/v1/deployments", body, format="json")
    assert response.status_code == 201, response.content
    made = response.json()
    assert (made["name"], made["mode"], made["drain_s"], made["slo_ttft_ms"]) == ("other", "dedicated", 120, 500)
    assert made["model"] == {"id": world.model.pk, "name": world.model.name}
    assert made["replicas"]["decode"] == {"assigned": 0, "confirmed": 0}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"name": None}, 400, "null"),
        ({"model": 4711}, 404, "not-found"),
        ({"mode": "sometimes"}, 400, "invalid_choice"),
        ({"engine_args": "--x"}, 400, "not_a_list"),
        ({"engine_args": [7, {}]}, 400, "invalid"),
        ({"engine_args": ["--port=1"]}, 400, None),
        ({"prefill_args": ["--api-key", "x"]}, 400, None),
        ({"decode_args": ["--served_model_name=x"]}, 400, None),
        ({"drain_s": 3601}, 400, "max_value"),
        ({"min_prefill": 2, "max_prefill": 1}, 400, "replica-bounds"),
        ({"slo_itl_ms": 0}, 400, "min_value"),
        ({"kv_connector": "Carrier"}, 400, "kv-connector"),
        ({"aliases": ["chat"]}, 409, "served-name-taken"),
        ({"name": "chat"}, 409, "served-name-taken"),
        ({"min_decode": 2**31}, 400, "max_value"),
        ({"force": True}, 400, "unknown_field"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused(
    change: dict, status: int, code: str | None, operator: APIClient, world: World
) -> None:
    body = {"name": "other", "model": world.model.pk, **change}
    problems = problem_of(operator.post("/api/v1/deployments", body, format="json"), status)["problems"]
    assert code is None or code in {problem["code"] for problem in problems}
    assert Deployment.objects.count() == 1


def test_only_what_is_sent_changes(operator: APIClient, world: World) -> None:
    address = f"/api/v1/deployments/{world.deployment.pk}"
    before = operator.get(address).json()
    response = operator.patch(address, {"slo_ttft_ms": 300}, format="json")
    assert response.status_code == 200, response.content
    assert response.json() == {**before, "slo_ttft_ms": 300}
    assert operator.patch(address, {"slo_ttft_ms": None}, format="json").json() == before


def test_a_change_that_replaces_engines_asks_for_force(operator: APIClient, world: World) -> None:
    address = f"/api/v1/deployments/{world.deployment.pk}"
    change = {"engine_args": ["--max-model-len=1024"]}
    [entry] = problem_of(operator.patch(address, change, format="json"), 409)["problems"]
    assert (entry["code"], entry["forceable"]) == ("engines-replaced", True)
    response = operator.patch(address, {**change, "force": True}, format="json")
    assert response.json()["engine_args"] == ["--max-model-len=1024"]


def test_arguments_that_run_code_are_an_admins(operator: APIClient, admin: APIClient, world: World) -> None:
    address = f"/api/v1/deployments/{world.deployment.pk}"
    change = {"engine_args": ["--trust-remote-code"], "force": True}
    [entry] = problem_of(operator.patch(address, change, format="json"), 403)["problems"]
    assert (entry["code"], "--trust-remote-code" in entry["message"]) == ("engine-arg-admin", True)
    assert admin.patch(address, change, format="json").json()["engine_args"] == ["--trust-remote-code"]
    assert operator.patch(address, {"slo_ttft_ms": 300}, format="json").status_code == 200


def test_arguments_are_taken_exactly_as_they_are(operator: APIClient, world: World) -> None:
    body = {"name": "other", "model": world.model.pk, "engine_args": ["--chat-template-content-format", " string "]}
    made = operator.post("/api/v1/deployments", body, format="json").json()
    assert made["engine_args"] == body["engine_args"]


def test_replicas_are_counted_by_role(viewer: APIClient, world: World) -> None:
    [row] = viewer.get("/api/v1/deployments?name=chat").json()["results"]
    assert row["replicas"]["aggregated"] == {"assigned": 1, "confirmed": 1}
    assert row["replicas"]["lent"] == {"assigned": 0, "confirmed": 0}


def test_a_replica_in_a_slot_that_the_pool_lends_counts_for_no_role(viewer: APIClient, world: World) -> None:
    Partition.objects.filter(pk=world.partition.pk).update(pool=True, overflow=True)
    [row] = viewer.get("/api/v1/deployments?name=chat").json()["results"]
    assert row["replicas"]["aggregated"] == {"assigned": 0, "confirmed": 0}
    assert row["replicas"]["lent"] == {"assigned": 1, "confirmed": 1}


def test_a_deployment_is_deleted_once_nothing_is_assigned(operator: APIClient, world: World) -> None:
    address = f"/api/v1/deployments/{world.deployment.pk}"
    problem_of(operator.delete(address), 409)
    operator.post(f"/api/v1/partitions/{world.partition.pk}/release", {}, format="json")
    assert operator.delete(address).status_code == 204
    problem_of(operator.get(address), 404)
