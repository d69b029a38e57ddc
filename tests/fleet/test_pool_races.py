"""Several gateways ask for models in the same moment: each model is woken once, and no slot is given to two."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.fleet import verified
from controlplane.fleet.models import Activation, Node, Partition
from controlplane.fleet.publish import spec_of
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import Ask, Standing, State, wake
from tests.factories import make_deployment, make_gpu, make_node, make_partition
from tests.fleet.test_races import at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def node() -> Node:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))
    node = make_node("n1")
    for _ in range(2):
        make_partition(node, gpus=[make_gpu(node)], pool=True)
    return node


def ask(*names: str) -> dict[str, Standing]:
    return wake({name: Ask(waiters=1) for name in names})


@pytest.mark.parametrize("attempt", range(3))
def test_however_many_gateways_ask_at_once_a_model_is_started_once(node: Node, attempt: int) -> None:
    make_deployment("rare", mode="pooled")
    told = at_once(*[lambda: ask("rare")["rare"]] * 4, lambda: pool.sweep(timezone.now()))
    assert {standing.state for standing in told[:4]} == {State.STARTING}
    assert list(Activation.objects.values_list("state", flat=True)) == ["starting"]
    assert Partition.objects.filter(deployment__isnull=False).count() == 1
    assert AuditEvent.objects.filter(verb="assign").count() == 1
    assert len(spec_of(Node.objects.get(pk=node.pk)).replicas) == 1


@pytest.mark.parametrize("attempt", range(3))
def test_of_three_models_that_two_gateways_want_in_two_slots_one_waits(node: Node, attempt: int) -> None:
    names = ["a", "b", "c"]
    for name in names:
        make_deployment(name, mode="pooled")
    told = at_once(lambda: ask(*names), lambda: ask(*reversed(names)))
    assert all(isinstance(one, dict) for one in told), told
    states = Counter(Activation.objects.values_list("state", flat=True))
    assert states == {"starting": 2, "waiting": 1}
    there = Partition.objects.filter(deployment__isnull=False).values_list("deployment__name", flat=True)
    assert len(set(there)) == len(there) == 2
    assert set(there) == set(Activation.objects.filter(state="starting").values_list("deployment__name", flat=True))
