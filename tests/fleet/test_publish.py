"""A node's spec and its counter."""

from __future__ import annotations

import msgspec
import pytest
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import selectors, services
from controlplane.fleet.models import Node, Partition
from controlplane.fleet.publish import publish, spec_of
from tests.factories import make_deployment, make_node, make_partition, make_ready
from workers.contract import NodeSpec, Role

pytestmark = pytest.mark.django_db


def run_publish(node: Node) -> bool:
    with transaction.atomic():
        return publish(Node.objects.select_for_update().get(pk=node.pk))


def stored(node: Node) -> NodeSpec:
    return spec_of(Node.objects.get(pk=node.pk))


def test_the_first_spec_of_an_empty_node_has_generation_one() -> None:
    node = make_node()

    assert run_publish(node)

    assert stored(node) == NodeSpec(node=node.pk, generation=1)


def test_publishing_again_changes_nothing() -> None:
    node = make_node()
    make_partition(node, role="decode")
    run_publish(node)
    before = Node.objects.get(pk=node.pk)

    assert not run_publish(node)

    after = Node.objects.get(pk=node.pk)
    assert (after.generation, after.spec) == (before.generation, before.spec)


def test_a_partition_carries_the_generation_of_its_own_last_change() -> None:
    node = make_node()
    first, second = make_partition(node, role="prefill"), make_partition(node, role="decode")
    run_publish(node)
    Partition.objects.filter(pk=second.pk).update(role="prefill")

    run_publish(node)

    first.refresh_from_db(), second.refresh_from_db()
    assert (first.generation, second.generation) == (1, 2)
    assert {r.partition: r.generation for r in stored(node).replicas} == {first.pk: 1, second.pk: 2}


def routed() -> list[int]:
    return [row.partition for row in selectors.routing_rows(timezone.now())]


def test_a_new_drain_deadline_is_published_and_no_replica_leaves_the_routing(actor: Actor) -> None:
    """Waiting for the nodes to confirm it would leave the deployment without a single replica meanwhile."""
    partition = make_partition(role="decode")
    run_publish(partition.node)
    partition.refresh_from_db()
    make_ready(partition)

    services.update_deployment(partition.deployment_id, drain_s=7, actor=actor)

    spec = stored(partition.node)
    assert (spec.generation, spec.replicas[0].drain_s, spec.replicas[0].generation) == (2, 7.0, 1)
    partition.refresh_from_db()
    assert partition.generation == 1
    assert routed() == [partition.pk]


def test_a_new_name_of_a_partition_is_published_and_leaves_it_in_the_routing() -> None:
    partition = make_partition(role="decode")
    run_publish(partition.node)
    partition.refresh_from_db()
    make_ready(partition)
    Partition.objects.filter(pk=partition.pk).update(name="front")

    assert run_publish(partition.node)

    spec = stored(partition.node)
    assert (spec.generation, spec.replicas[0].name, spec.replicas[0].generation) == (2, "front", 1)
    assert routed() == [partition.pk]


def test_what_asks_for_confirmation_still_does_beside_a_new_drain_deadline(actor: Actor) -> None:
    partition = make_partition(role="decode")
    run_publish(partition.node)
    partition.refresh_from_db()
    make_ready(partition)

    services.update_deployment(partition.deployment_id, drain_s=7, aliases=["other"], force=True, actor=actor)

    assert stored(partition.node).replicas[0].generation == 2
    assert routed() == []


def test_a_release_moves_the_generation_of_the_partition_it_emptied() -> None:
    node = make_node()
    partition = make_partition(node, role="decode")
    run_publish(node)
    Partition.objects.filter(pk=partition.pk).update(deployment=None, role="", engine_key="")

    run_publish(node)

    partition.refresh_from_db()
    assert partition.generation == 2
    assert stored(node).replicas == ()


def test_a_replica_is_everything_that_the_agent_needs() -> None:
    deployment = make_deployment(
        "chat",
        aliases=["chat-latest"],
        engine_args=["--max-model-len=2048"],
        decode_args=["--max-num-seqs=4"],
        drain_s=7,
    )
    node = make_node()
    partition = make_partition(node, gpus=2, deployment=deployment, role="decode", engine_key="fbe-secret")

    run_publish(node)

    [replica] = stored(node).replicas
    assert replica.role is Role.DECODE
    assert replica.gpus == tuple(gpu.uuid for gpu in partition.gpus.order_by("index"))
    assert replica.model == deployment.model.source
    assert replica.served_names == ("chat", "chat-latest")
    assert replica.args == ("--max-model-len=2048", "--max-num-seqs=4")
    assert (replica.kv_connector, replica.kv_lease_s) == ("NixlConnector", 30)
    assert (replica.api_key, replica.drain_s) == ("fbe-secret", 7.0)


def test_an_aggregated_replica_transfers_no_kv() -> None:
    node = make_node()
    make_partition(node, role="aggregated")

    run_publish(node)

    assert stored(node).replicas[0].kv_connector == ""


def test_the_stored_spec_is_what_the_agent_decodes() -> None:
    node = make_node()
    make_partition(node, role="prefill")
    run_publish(node)

    on_the_wire = msgspec.json.encode(Node.objects.get(pk=node.pk).spec)

    assert msgspec.json.decode(on_the_wire, type=NodeSpec) == stored(node)


@pytest.mark.parametrize("intent", ["draining", "revoked"])
def test_nothing_should_run_on_a_node_that_leaves_though_its_assignments_are_kept(intent: str) -> None:
    node = make_node()
    partition = make_partition(node, role="decode")
    run_publish(node)
    Node.objects.filter(pk=node.pk).update(**{intent: True})

    run_publish(node)

    assert stored(node).replicas == ()
    partition.refresh_from_db()
    assert partition.deployment is not None


def test_a_generation_from_the_future_is_jumped_past_for_all_partitions() -> None:
    """The database was restored from a backup: the node holds a spec that we never wrote."""
    node = make_node()
    first, second = make_partition(node, role="prefill"), make_partition(node, role="decode")
    run_publish(node)
    Node.objects.filter(pk=node.pk).update(observed_generation=50)

    assert run_publish(node)

    assert stored(node).generation == 51
    assert {replica.generation for replica in stored(node).replicas} == {51}
    assert set(Partition.objects.filter(pk__in=[first.pk, second.pk]).values_list("generation", flat=True)) == {51}
