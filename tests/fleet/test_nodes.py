"""What people decide about whole nodes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.credentials import digest
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.facts import drain_facts
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.fleet.publish import spec_of
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def assigned_node(actor: Actor) -> Node:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)
    return Node.objects.get(pk=partition.node_id)


def test_cordon_and_uncordon_leave_what_runs_alone(actor: Actor) -> None:
    node = assigned_node(actor)

    services.cordon(node.pk, actor=actor, reason="fan is loud")
    services.uncordon(node.pk, actor=actor)

    node.refresh_from_db()
    assert (node.schedulable, node.generation) == (True, 1)
    assert AuditEvent.objects.get(verb="cordon").reason == "fan is loud"


def test_cordoning_twice_is_recorded_once(actor: Actor) -> None:
    node = make_node()

    services.cordon(node.pk, actor=actor)
    services.cordon(node.pk, actor=actor)

    assert AuditEvent.objects.filter(verb="cordon").count() == 1


def test_a_drain_ends_the_engines_and_uncordon_brings_them_back(actor: Actor) -> None:
    node = assigned_node(actor)

    drained = services.drain(node.pk, actor=actor)
    assert spec_of(drained).replicas == ()
    back = services.uncordon(node.pk, actor=actor)

    assert len(spec_of(back).replicas) == 1
    assert (back.schedulable, back.draining, back.generation) == (True, False, 3)


def test_a_drains_deadline_is_shorter_or_longer_than_the_deployments(actor: Actor) -> None:
    node = assigned_node(actor)

    drained = services.drain(node.pk, actor=actor, deadline_s=20)

    assert spec_of(drained).drain_s == 20
    assert (drained.drain_deadline_at - drained.drain_began_at).total_seconds() == 20


def test_without_a_deadline_each_engine_keeps_its_deployments(actor: Actor) -> None:
    drained = services.drain(assigned_node(actor).pk, actor=actor)

    assert (spec_of(drained).drain_s, drained.drain_deadline_at) == (None, None)


def test_a_new_deadline_counts_from_now_and_is_told_from_the_drains_beginning(actor: Actor) -> None:
    node = assigned_node(actor)
    services.drain(node.pk, actor=actor, deadline_s=20)
    Node.objects.update(drain_began_at=timezone.now() - timedelta(seconds=100))

    later = services.drain(node.pk, actor=actor, deadline_s=60)
    again = services.drain(node.pk, actor=actor)

    assert spec_of(later).drain_s == pytest.approx(160, abs=1)
    assert again.generation == later.generation, "without a deadline there is nothing new in it"
    assert AuditEvent.objects.filter(verb="drain").count() == 2


@pytest.mark.parametrize("deadline", [-1, 8 * 24 * 3600, float("nan"), float("inf")])
def test_no_drain_has_an_unlawful_deadline(deadline: float, actor: Actor) -> None:
    node = make_node()

    with pytest.raises(Invalid, match="deadline is 0 to"):
        services.drain(node.pk, actor=actor, deadline_s=deadline)
    node.refresh_from_db()
    assert not node.draining


@pytest.mark.parametrize("schedulable", [True, False])
def test_a_cancelled_drain_leaves_the_node_as_it_was(schedulable: bool, actor: Actor) -> None:
    node = assigned_node(actor)
    if not schedulable:
        services.cordon(node.pk, actor=actor)
    services.drain(node.pk, actor=actor, deadline_s=20)

    back = services.cancel_drain(node.pk, actor=actor, reason="not today")
    services.cancel_drain(node.pk, actor=actor)

    assert (back.schedulable, back.draining, back.drain_began_at, back.drain_deadline_at) == (
        schedulable, False, None, None,
    )  # fmt: skip
    assert (len(spec_of(back).replicas), spec_of(back).drain_s) == (1, None)
    assert AuditEvent.objects.get(verb="cancel-drain").reason == "not today"


def test_how_far_a_drain_is(actor: Actor) -> None:
    node = make_node()
    patient = make_deployment(drain_s=300)
    busy = make_ready(make_partition(node, deployment=patient, role="decode"))
    make_ready(make_partition(node, role="decode"), phase="exited")
    assert drain_facts(node, node.partitions.all()) is None

    node = services.drain(node.pk, actor=actor)
    began = node.drain_began_at.timestamp()
    facts = drain_facts(node, node.partitions.all())
    assert facts == {"began_at": began, "deadline_at": began + 300, "partitions_left": 1, "returns_to": "ready"}

    Partition.objects.filter(pk=busy.pk).update(phase="")
    assert drain_facts(node, node.partitions.all())["deadline_at"] is None


def test_a_revoked_node_should_run_nothing_and_takes_no_more_intent(actor: Actor) -> None:
    node = assigned_node(actor)

    revoked = services.revoke_node(node.pk, actor=actor, reason="stolen")

    assert revoked.revoked
    assert spec_of(revoked).replicas == ()
    with pytest.raises(Refused, match="is revoked"):
        services.uncordon(node.pk, actor=actor)


def test_a_node_in_use_is_not_removed(actor: Actor) -> None:
    node = assigned_node(actor)

    with pytest.raises(Refused, match="p0 have an assignment or a process"):
        services.remove_node(node.pk, actor=actor)


def test_a_node_with_a_live_engine_is_not_removed(actor: Actor) -> None:
    partition = make_ready(make_partition())

    with pytest.raises(Refused):
        services.remove_node(partition.node_id, actor=actor)


def test_what_a_dead_host_last_said_does_not_keep_it(actor: Actor) -> None:
    partition = make_ready(make_partition(make_node(heard=False)))

    services.remove_node(partition.node_id, actor=actor)

    assert not Node.objects.exists()


def test_removing_takes_gpus_and_partitions_along_and_keeps_the_trail(actor: Actor) -> None:
    node = make_node("host-7")
    make_partition(node, gpus=2)

    services.remove_node(node.pk, actor=actor, reason="sold")

    assert not (Node.objects.exists() or Gpu.objects.exists() or Partition.objects.exists())
    event = AuditEvent.objects.get(verb="remove")
    assert (event.subject_name, event.reason) == ("host-7", "sold")


def test_only_a_gpu_that_is_gone_and_free_is_forgotten(actor: Actor) -> None:
    node = make_node()
    there, gone = make_gpu(node), make_gpu(node, present=False)
    partition = make_partition(node, gpus=1)
    partition.gpus.update(present=False)

    services.forget_gpu(gone.pk, actor=actor)

    with pytest.raises(Refused, match="still in the node's reports"):
        services.forget_gpu(there.pk, actor=actor)
    with pytest.raises(Refused, match="still belongs to partition"):
        services.forget_gpu(partition.gpus.get().pk, actor=actor)
    assert not Gpu.objects.filter(pk=gone.pk).exists()


def test_a_rotated_token_is_kept_as_a_hash_only(actor: Actor) -> None:
    node = make_node()

    token = services.rotate_node_token(node.pk, actor=actor)

    node.refresh_from_db()
    assert node.token_hash == digest(token)
    assert token not in str(AuditEvent.objects.get(verb="rotate-token").__dict__)


def test_labels_are_replaced(actor: Actor) -> None:
    node = make_node(labels={"rack": "1"})

    services.label(node.pk, labels={"rack": "2"}, actor=actor)

    assert AuditEvent.objects.get(verb="label").after == {"labels": {"rack": "2"}}
