"""What the pages change: one service each, with a reason, an undo, and a refusal that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.urls import reverse

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Deployment, JoinToken, Node, Partition, RegisteredModel
from tests import factories
from tests.web.conftest import Clients


def url(name: str, *args: object) -> str:
    return reverse(f"web:{name}", args=args)


def test_assigning_records_who_and_why_and_offers_to_undo(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("operator")
    form = {
        "deployment": fleet.deployment.pk,
        "role": "decode",
        "reason": "more decode",
        "expected_generation": fleet.idle.generation,
    }
    answer = client.post(url("assign", fleet.idle.pk), form, follow=True)
    fleet.idle.refresh_from_db()
    assert (fleet.idle.deployment, fleet.idle.role) == (fleet.deployment, "decode")
    event = AuditEvent.objects.get(verb="assign")
    assert (event.source, event.reason) == ("web", "more decode")
    assert ">Undo<" in answer.content.decode()

    assert (
        client.post(
            url("release", fleet.idle.pk), {"reason": "undo", "expected_generation": fleet.idle.generation}
        ).status_code
        == 302
    )
    fleet.idle.refresh_from_db()
    assert fleet.idle.deployment is None


def test_undo_is_offered_once(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("operator")
    first = client.post(url("node-cordon", fleet.node.pk), {"reason": "firmware"}, follow=True)
    assert ">Undo<" in first.content.decode()
    assert f'action="{url("node-uncordon", fleet.node.pk)}"' in first.content.decode()
    assert ">Undo<" not in client.get(url("node", fleet.node.pk)).content.decode()


def test_somebody_who_was_faster_is_told_of(as_role: Clients, fleet: SimpleNamespace) -> None:
    stale = fleet.prefill.generation
    Partition.objects.filter(pk=fleet.prefill.pk).update(generation=stale + 1)
    form = {"deployment": fleet.deployment.pk, "role": "decode", "expected_generation": stale}
    answer = as_role("operator").post(url("assign", fleet.prefill.pk), form)
    assert answer.status_code == 409
    assert "no longer as you saw it" in answer.content.decode()
    fleet.prefill.refresh_from_db()
    assert fleet.prefill.role == "prefill"


def test_a_refusal_says_that_nothing_changed_and_what_to_do(as_role: Clients, fleet: SimpleNamespace) -> None:
    Node.objects.filter(pk=fleet.node.pk).update(schedulable=False)
    form = {"deployment": fleet.deployment.pk, "role": "decode", "expected_generation": fleet.idle.generation}
    answer = as_role("operator").post(url("assign", fleet.idle.pk), form)
    page = answer.content.decode()
    assert answer.status_code == 409
    assert "Nothing was changed." in page
    assert "cordoned" in page
    assert Partition.objects.get(pk=fleet.idle.pk).deployment is None


def test_the_plan_says_what_would_happen_before_it_does(as_role: Clients, fleet: SimpleNamespace) -> None:
    client, before = as_role("operator"), AuditEvent.objects.count()
    ask = {"deployment": fleet.deployment.pk, "role": "decode"}
    relabel = client.get(url("preview", fleet.prefill.pk), ask).content.decode()
    assert "Relabel: the engine stays up." in relabel
    assert "last prefill replica of chat" in relabel
    start = client.get(url("preview", fleet.idle.pk), ask).content.decode()
    assert "Start: an engine is started." in start
    assert "overhead" in start
    assert AuditEvent.objects.count() == before


def test_the_plan_says_how_long_it_takes_where_that_is_known(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("operator")
    ask = {"deployment": fleet.deployment.pk, "role": "decode"}
    Partition.objects.update(ready_after_s=None)
    assert "Expect" not in client.get(url("preview", fleet.idle.pk), ask).content.decode()
    Partition.objects.filter(pk=fleet.decode.pk).update(ready_after_s=17.0)
    assert "Expect about 17 s" in client.get(url("preview", fleet.idle.pk), ask).content.decode()
    assert "Expect about 1 s" in client.get(url("preview", fleet.prefill.pk), ask).content.decode()
    replace = client.get(url("preview", fleet.prefill.pk), {**ask, "deployment": other_deployment(fleet)})
    assert "Expect up to 126 s: the whole drain deadline" in replace.content.decode()


def other_deployment(fleet: SimpleNamespace) -> int:
    """One whose only replica took 5 s to start."""
    partition = factories.make_partition(fleet.node, role="decode")
    factories.make_ready(partition, ready_after_s=5.0)
    return partition.deployment_id


def test_a_plan_that_cannot_be_applied_has_no_apply_button(as_role: Clients, fleet: SimpleNamespace) -> None:
    Node.objects.filter(pk=fleet.node.pk).update(schedulable=False)
    page = (
        as_role("operator")
        .get(url("preview", fleet.idle.pk), {"deployment": fleet.deployment.pk, "role": "decode"})
        .content.decode()
    )
    assert 'form="assign" disabled>Apply' in page


@pytest.mark.parametrize(
    ("form", "groups"),
    [({"preset": "4x2"}, [[0, 1], [2, 3], [4, 5], [6, 7]]), ({"groups": "0-3; 4 5; 6"}, [[0, 1, 2, 3], [4, 5], [6]])],
)
def test_a_node_is_split_by_preset_or_by_own_groups(form: dict, groups: list, as_role: Clients, db: None) -> None:
    node = factories.make_node("bare", gpus=8)
    answer = as_role("operator").post(url("split", node.pk), form)
    assert answer.status_code == 302
    made = [sorted(gpu.index for gpu in partition.gpus.all()) for partition in node.partitions.order_by("name")]
    assert made == groups


@pytest.mark.parametrize("groups", ["0-1; 1-2", "0 1 2", "x", "0-9999"])
def test_an_unlawful_split_changes_nothing(groups: str, as_role: Clients, db: None) -> None:
    node = factories.make_node("bare", gpus=8)
    answer = as_role("operator").post(url("split", node.pk), {"groups": groups})
    assert answer.status_code in {400, 409, 422}
    assert "Nothing was changed" in answer.content.decode()
    assert not node.partitions.exists()


def test_a_ready_made_plan_splits_and_assigns_or_says_why_not(as_role: Clients, db: None) -> None:
    node, deployment = factories.make_node("eight", gpus=8), factories.make_deployment("oss")
    page = as_role("operator").get(url("split", node.pk)).content.decode()
    assert "Ready-made plan" in page
    answer = as_role("operator").post(
        url("node-plan", node.pk), {"plan": "gpt-oss-120b-4p4d", "deployment": deployment.pk}
    )
    assert answer.status_code == 302, answer.content.decode()
    roles = [partition.role for partition in node.partitions.order_by("name")]
    assert roles == ["prefill"] * 4 + ["decode"] * 4


def test_a_join_token_is_shown_once_with_its_command(as_role: Clients, db: None) -> None:
    client = as_role("admin")
    answer = client.post(url("node-add"), {"node_name": "gpu-7", "ttl_s": "3600"})
    page = answer.content.decode()
    token = JoinToken.objects.get()
    assert answer["Cache-Control"] == "no-store"
    assert f"python -m workers join http://127.0.0.1:8000 --token {token.prefix}" in page
    listed = client.get(url("nodes")).content.decode()
    assert token.prefix in listed
    assert page.split("--token ")[1].split("<")[0].split()[0] not in listed
    client.post(url("token-cancel", token.pk), follow=True)
    assert token.prefix not in client.get(url("nodes")).content.decode()


def test_what_cannot_be_undone_asks_for_the_name_and_a_reason(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("admin")
    for form in ({}, {"confirm": "gpu-2", "reason": "stolen"}, {"confirm": "gpu-1"}):
        assert client.post(url("node-revoke", fleet.node.pk), form).status_code == 422
        fleet.node.refresh_from_db()
        assert not fleet.node.revoked
    assert client.post(url("node-revoke", fleet.node.pk), {"confirm": "gpu-1", "reason": "stolen"}).status_code == 302
    fleet.node.refresh_from_db()
    assert fleet.node.revoked
    assert AuditEvent.objects.get(verb="revoke").reason == "stolen"


def test_a_node_in_use_is_not_removed(as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role("admin").post(url("node-remove", fleet.node.pk), {"confirm": "gpu-1", "reason": "old"})
    assert answer.status_code == 409
    assert "Release its partitions first" in answer.content.decode()
    assert Node.objects.filter(pk=fleet.node.pk).exists()


def test_labels_are_changed_as_lines(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("operator")
    assert client.post(url("node-label", fleet.node.pk), {"labels": "rack=a\n zone = eu "}).status_code == 302
    fleet.node.refresh_from_db()
    assert fleet.node.labels == {"rack": "a", "zone": "eu"}
    assert client.post(url("node-label", fleet.node.pk), {"labels": "no pair"}).status_code == 422


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(factories.SMOLLM2))
    header = json.dumps({"a": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    return tmp_path


def test_the_fit_is_shown_before_a_model_is_saved(as_role: Clients, fleet: SimpleNamespace, folder: Path) -> None:
    client = as_role("operator")
    ask = {"source": str(folder), "tp": "1", "concurrency": "8", "context_tokens": "2048"}
    page = client.get(url("fit"), ask).content.decode()
    assert "Simulated H100 80GB" in page
    assert ">fits<" in page
    assert "2,048 tokens" in page
    assert "LlamaForCausalLM" in page
    assert not RegisteredModel.objects.filter(source=str(folder)).exists()
    wrong = client.get(url("fit"), ask | {"source": str(folder / "nowhere")})
    assert "The model cannot be read." in wrong.content.decode()


def test_registering_leads_to_serving(as_role: Clients, folder: Path) -> None:
    client = as_role("operator")
    answer = client.post(url("register"), {"source": str(folder), "name": "smol"}, follow=True)
    model = RegisteredModel.objects.get(name="smol")
    assert f"{url('deployment-new')}?model={model.pk}" in answer.content.decode()
    form = {
        "name": "smol",
        "model_id": model.pk,
        "engine_args": "--max-model-len 2048\n--enforce-eager",
        "kv_connector": "NixlConnector",
        "min_transfer_tokens": 0,
        "drain_s": 60,
        "min_prefill": 0,
        "min_decode": 0,
        "min_aggregated": 0,
    }
    assert client.post(url("deployment-new"), form).status_code == 302
    deployment = Deployment.objects.get(name="smol")
    assert deployment.engine_args == ["--max-model-len", "2048", "--enforce-eager"]
    assert "--max-model-len 2048\n--enforce-eager" in client.get(url("deployment-edit", deployment.pk)).content.decode()


def test_an_argument_that_runs_code_is_an_admins_in_the_form_too(as_role: Clients, fleet: SimpleNamespace) -> None:
    form = {
        "name": "trusting",
        "model_id": fleet.model.pk,
        "engine_args": "--trust-remote-code",
        "kv_connector": "NixlConnector",
        "min_transfer_tokens": 0,
        "drain_s": 60,
        "min_prefill": 0,
        "min_decode": 0,
        "min_aggregated": 0,
    }
    answer = as_role("operator").post(url("deployment-new"), form)
    assert "Only admins may set or change --trust-remote-code" in answer.content.decode()
    assert not Deployment.objects.filter(name="trusting").exists()
    assert as_role("admin").post(url("deployment-new"), form).status_code == 302


def test_an_argument_that_the_agent_owns_is_refused_in_the_form(as_role: Clients, fleet: SimpleNamespace) -> None:
    form = {
        "name": "bad",
        "model_id": fleet.model.pk,
        "engine_args": "--port 80",
        "kv_connector": "NixlConnector",
        "min_transfer_tokens": 0,
        "drain_s": 60,
        "min_prefill": 0,
        "min_decode": 0,
        "min_aggregated": 0,
    }
    answer = as_role("operator").post(url("deployment-new"), form)
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "--port" in page
    assert "Nothing was changed." in page
    assert not Deployment.objects.filter(name="bad").exists()
