"""How a model is served."""

from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.fleet.models import Deployment, Node
from controlplane.fleet.publish import spec_of
from tests.factories import make_deployment, make_model, make_partition, make_ready

pytestmark = pytest.mark.django_db


def codes(error: pytest.ExceptionInfo) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_a_deployment_with_everything(actor: Actor) -> None:
    model = make_model()

    made = services.create_deployment(
        name="chat", model_id=model.pk, aliases=["chat-v1"], engine_args=["--max-model-len=2048"],
        prefill_args=["--max-num-seqs=8"], slo_ttft_ms=500, slo_itl_ms=50, min_prefill=1, max_prefill=2, actor=actor,
    )  # fmt: skip

    made.refresh_from_db()
    assert (made.model, made.aliases, made.engine_args) == (model, ["chat-v1"], ["--max-model-len=2048"])
    assert AuditEvent.objects.get(verb="create").after["slo_ttft_ms"] == 500


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"name": "with space"}, "served-name"),
        ({"aliases": ["ok", ""]}, "served-name"),
        ({"mode": "shared"}, "mode"),
        ({"kv_connector": "Evil"}, "kv-connector"),
        ({"engine_args": ["--port", "1"]}, "engine-arg-owned"),
        ({"decode_args": ["--served_model_name=x"]}, "engine-arg-owned"),
        ({"min_decode": 3, "max_decode": 2}, "replica-bounds"),
        ({"drain_s": 999_999}, "out-of-range"),
        ({"slo_ttft_ms": 0}, "out-of-range"),
        ({"min_transfer_tokens": -1}, "out-of-range"),
        ({"prefill_max_requests": 0}, "out-of-range"),
        ({"decode_max_requests": -1}, "out-of-range"),
        ({"max_prefill": 2**31}, "out-of-range"),
    ],
)
def test_wrong_values_are_invalid(actor: Actor, values: dict, code: str) -> None:
    with pytest.raises(Invalid) as error:
        services.create_deployment(**{"name": "chat", "model_id": make_model().pk, "actor": actor, **values})

    assert code in codes(error)
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("values", [{"name": "taken"}, {"aliases": ["also-taken"]}])
def test_a_served_name_means_one_deployment(actor: Actor, values: dict) -> None:
    make_deployment("taken", aliases=["also-taken"])

    with pytest.raises(Refused) as error:
        services.create_deployment(**{"name": "chat", "model_id": make_model().pk, "actor": actor, **values})

    assert codes(error) == ["served-name-taken"]


def test_an_alias_is_not_given_twice(actor: Actor) -> None:
    with pytest.raises(Refused) as error:
        services.create_deployment(name="chat", aliases=["chat"], model_id=make_model().pk, actor=actor)

    assert codes(error) == ["alias-twice"]


def test_a_model_that_is_not_there_is_not_found(actor: Actor) -> None:
    with pytest.raises(NotFound):
        services.create_deployment(name="chat", model_id=404, actor=actor)


def test_a_change_reaches_the_specs_of_its_nodes(actor: Actor) -> None:
    partition = make_partition()
    deployment = make_deployment("chat")
    services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    services.update_deployment(deployment.pk, engine_args=["--max-model-len=1024"], actor=actor)

    [replica] = spec_of(Node.objects.get(pk=partition.node_id)).replicas
    assert (replica.args, replica.generation) == (("--max-model-len=1024",), 2)
    event = AuditEvent.objects.get(verb="change")
    assert (event.before, event.after) == ({"engine_args": []}, {"engine_args": ["--max-model-len=1024"]})


def test_what_the_engines_do_not_see_changes_no_spec(actor: Actor) -> None:
    partition = make_partition()
    deployment = make_deployment()
    services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    services.update_deployment(deployment.pk, slo_ttft_ms=100, min_transfer_tokens=64, actor=actor)

    assert Node.objects.get(pk=partition.node_id).generation == 1


def test_a_change_of_nothing_is_not_recorded(actor: Actor) -> None:
    deployment = make_deployment(drain_s=30)

    services.update_deployment(deployment.pk, drain_s=30, actor=actor)

    assert not AuditEvent.objects.exists()


def test_replacing_running_engines_must_be_asked_for(actor: Actor) -> None:
    partition = make_ready(make_partition(role="decode"))
    change = {"engine_args": ["--max-num-seqs=4"], "actor": actor}

    with pytest.raises(Refused, match="1 running engine would be replaced") as error:
        services.update_deployment(partition.deployment_id, **change)
    services.update_deployment(partition.deployment_id, force=True, **change)

    assert error.value.forceable


def test_a_deployment_in_use_is_not_deleted(actor: Actor) -> None:
    partition = make_partition(role="decode")

    with pytest.raises(Refused, match=f"assigned to {partition}"):
        services.delete_deployment(partition.deployment_id, actor=actor)


def test_an_unused_deployment_is_deleted(actor: Actor) -> None:
    deployment = make_deployment("chat")

    services.delete_deployment(deployment.pk, actor=actor)

    assert not Deployment.objects.exists()
    assert AuditEvent.objects.get(verb="delete").before["name"] == "chat"


def test_a_misspelt_column_is_a_programming_error(actor: Actor) -> None:
    with pytest.raises(TypeError, match="drain_seconds"):
        services.update_deployment(make_deployment().pk, drain_seconds=3, actor=actor)
