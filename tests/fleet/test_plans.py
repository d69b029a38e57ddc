"""A ready-made plan for a whole node."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import Node
from tests.conftest import Broker
from tests.factories import GIB, make_deployment, make_model, make_node, make_partition

pytestmark = pytest.mark.django_db


def deployment_of_80gb() -> Any:
    """gpt-oss-120b has 64 heads and 8 KV heads."""
    model = make_model(config={"num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 2880})
    return make_deployment("gpt-oss-120b", model=model)


def test_gpt_oss_takes_a_node_of_eight_as_four_and_four(actor: Actor) -> None:
    node = make_node(gpus=8)

    made = services.apply_plan(node.pk, plan="gpt-oss-120b-4p4d", deployment_id=deployment_of_80gb().pk, actor=actor)

    assert [partition.role for partition in made] == ["prefill"] * 4 + ["decode"] * 4
    assert [partition.gpus.get().index for partition in made] == list(range(8))
    assert {event.reason for event in AuditEvent.objects.filter(verb="assign")} == {"plan 4p+4d of 1 GPU"}


def test_a_plan_is_one_message_to_the_node(
    broker: Broker, actor: Actor, django_capture_on_commit_callbacks: Any
) -> None:
    node = make_node(gpus=8)

    with django_capture_on_commit_callbacks(execute=True):
        services.apply_plan(node.pk, plan="gpt-oss-120b-tp4", deployment_id=deployment_of_80gb().pk, actor=actor)

    with broker.client() as client:
        assert client.llen(f"node.{node.pk}") == 1


def test_a_plan_is_made_whole_or_not_at_all(actor: Actor) -> None:
    node = make_node(gpus=8, schedulable=False)
    make_partition(node, gpus=0, name="mine")

    with pytest.raises(Refused):
        services.apply_plan(node.pk, plan="gpt-oss-120b-4p4d", deployment_id=deployment_of_80gb().pk, actor=actor)

    assert list(node.partitions.values_list("name", flat=True)) == ["mine"]
    assert Node.objects.get(pk=node.pk).generation == 0
    assert not AuditEvent.objects.exists()


def test_a_plan_for_eight_does_not_fit_a_node_of_four(actor: Actor) -> None:
    with pytest.raises(Refused, match=r"needs 8 GPUs; .* has 4"):
        services.apply_plan(
            make_node(gpus=4).pk, plan="gpt-oss-120b-4p4d", deployment_id=make_deployment().pk, actor=actor
        )


def test_force_goes_on_where_the_memory_is_only_estimated(actor: Actor) -> None:
    node, deployment = make_node(gpus=8), deployment_of_80gb()
    node.gpus.update(memory_bytes=GIB)

    with pytest.raises(Refused) as error:
        services.apply_plan(node.pk, plan="gpt-oss-120b-4p4d", deployment_id=deployment.pk, actor=actor)
    made = services.apply_plan(node.pk, plan="gpt-oss-120b-4p4d", deployment_id=deployment.pk, actor=actor, force=True)

    assert [problem.code for problem in error.value.problems] == ["memory"]
    assert len(made) == 8


def test_an_unknown_plan_is_invalid(actor: Actor) -> None:
    with pytest.raises(Invalid, match="is not a plan"):
        services.apply_plan(make_node().pk, plan="llama-8", deployment_id=make_deployment().pk, actor=actor)
