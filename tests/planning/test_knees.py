"""The smallest batch that fills the GPU, given to the engines of a deployment by one action."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Deployment, Node
from controlplane.planning import knees, profiles
from controlplane.planning.models import EngineProfile
from tests.api.conftest import *  # noqa: F403 - the callers of the REST tests
from tests.api.conftest import problem_of
from tests.factories import make_deployment, make_gpus, make_model, make_node, make_partition, make_ready
from tests.planning import profile_tables as tables

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
GPU = "Simulated H100 80GB"
FLAG = "--max-num-batched-tokens"
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}  # that four GPUs can share


@pytest.fixture
def measured() -> EngineProfile:
    [row] = profiles.import_table(tables.splitwise(gpu="h100"), actor=ACTOR, gpus={"h100": GPU}).made
    return row


@pytest.fixture
def knee(measured: EngineProfile) -> int:
    return profiles.speed_of(profiles.profile_of(measured)).knee.tokens


def chat(*roles: str, **columns: Any) -> Deployment:
    """With an engine of four GPUs in each of these roles, on a node of its own."""
    row = make_deployment("chat", model=make_model("llama", config=HEADS), **columns)
    node: Node = make_node("alpha")
    for role in roles:
        make_ready(make_partition(node, gpus=make_gpus(node, 4), deployment=row, role=role))
    return row


def test_prefill_engines_of_their_own_get_it_and_others_are_left_alone(measured: EngineProfile, knee: int) -> None:
    before = ["--max_num_batched_tokens", "64"]
    row = chat("prefill", "decode", engine_args=["--max-model-len=4096"], prefill_args=before)
    would = knees.look(measured.pk, row.pk)
    assert (would.column, would.tokens, would.engines) == ("prefill_args", knee, 1)
    assert would.after == [f"{FLAG}={knee}"] and would.before == before
    with pytest.raises(Refused, match="1 running engine would be replaced"):
        knees.apply(measured.pk, row.pk, actor=ACTOR)
    row.refresh_from_db()
    assert row.prefill_args == would.before, "a look and a refusal change nothing"
    knees.apply(measured.pk, row.pk, actor=ACTOR, force=True, reason="TTFT")
    row.refresh_from_db()
    assert (row.prefill_args, row.engine_args) == (would.after, ["--max-model-len=4096"])
    event = AuditEvent.objects.filter(verb="change").get()
    assert event.reason == f"profile {measured.pk}: {knee} tokens a step; TTFT"
    assert (event.before, event.after) == ({"prefill_args": would.before}, {"prefill_args": would.after})
    spec = Node.objects.get(name="alpha").spec
    by_role = {replica["role"]: replica["args"] for replica in spec["replicas"]}
    assert f"{FLAG}={knee}" in by_role["prefill"] and not any(FLAG in arg for arg in by_role["decode"])


@pytest.mark.parametrize("columns", [{}, {"convertible": True}])
def test_where_prefill_has_no_engines_of_its_own_all_get_it(
    columns: dict[str, Any], measured: EngineProfile, knee: int
) -> None:
    row = chat("prefill" if columns else "aggregated", **columns)
    would = knees.look(measured.pk, row.pk)
    assert (would.column, would.engines, would.after) == ("engine_args", 1, [f"{FLAG}={knee}"])


def test_what_is_so_already_is_no_change_and_ends_no_engine(measured: EngineProfile, knee: int) -> None:
    row = chat("aggregated", engine_args=[FLAG, str(knee)])
    would = knees.apply(measured.pk, row.pk, actor=ACTOR)
    assert would.before == would.after and would.engines == 0
    assert not AuditEvent.objects.filter(verb="change").exists()


def test_an_engine_takes_no_fewer_tokens_than_sequences(measured: EngineProfile, knee: int) -> None:
    row = chat("aggregated", engine_args=[f"--max-num-seqs={knee + 100}"])
    would = knees.look(measured.pk, row.pk)
    assert would.tokens == knee + 100
    assert any("takes no fewer tokens" in note for note in would.notes)


def test_engines_on_other_gpus_than_those_measured_are_told(measured: EngineProfile) -> None:
    row = chat("aggregated")
    assert knees.look(measured.pk, row.pk).notes == []
    node = make_node("beta")
    make_partition(node, gpus=make_gpus(node, 2, name="A100"), deployment=row, role="aggregated")
    assert knees.look(measured.pk, row.pk).notes == [
        "1 of its engines has 2 x A100, of which this profile says nothing"
    ]


def test_a_profile_of_another_model_or_without_a_law_is_refused(measured: EngineProfile) -> None:
    other = make_deployment("other", model=make_model("qwen"))
    with pytest.raises(Refused, match="is of llama; other serves qwen"):
        knees.look(measured.pk, other.pk)
    row = chat()
    EngineProfile.objects.update(prefill=measured.prefill[:1])
    with pytest.raises(Refused, match="makes no law"):
        knees.look(measured.pk, row.pk)
    for profile, deployment in ((measured.pk, 0), (0, row.pk)):
        with pytest.raises(NotFound):
            knees.look(profile, deployment)


def test_over_rest_it_is_looked_at_applied_and_taken_back(
    operator: APIClient, viewer: APIClient, measured: EngineProfile, knee: int
) -> None:
    row = chat("prefill", "decode", prefill_args=["--max-model-len=2048"])
    address, body = f"/api/v1/profiles/{measured.pk}/apply", {"deployment": row.pk}
    would = viewer.post(f"{address}?dry_run=true", body, format="json").json()
    assert (would["deployment"], would["engines"]) == ({"id": row.pk, "name": "chat"}, 1)
    problem_of(viewer.post(address, body, format="json"), 403)
    refused = problem_of(operator.post(address, body, format="json"), 409)
    assert [one["forceable"] for one in refused["problems"]] == [True]
    done = operator.post(address, {**body, "force": True}, format="json")
    assert done.status_code == 200 and done.json() == would
    change = f"/api/v1/deployments/{row.pk}"
    assert operator.get(change).json()["prefill_args"] == ["--max-model-len=2048", f"{FLAG}={knee}"]
    back = operator.patch(change, {would["column"]: would["before"], "force": True}, format="json")
    assert back.json()["prefill_args"] == ["--max-model-len=2048"]
