"""Starts that fail in the pool, and engines and slots that are lost: what is told, tried elsewhere and given back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.fleet import services
from controlplane.fleet.models import Activation, Change, Deployment, Node, Partition
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import State
from tests.factories import make_deployment, make_node, make_ready
from tests.fleet import test_pool
from tests.fleet.reporting import status_of, tell
from tests.fleet.test_pool import ADMIN, GIB, ask, pooled, resident, slot, used
from workers.contract import Exit

pytestmark = pytest.mark.django_db
_gateway_lives, node = test_pool._gateway_lives, test_pool.node


def test_a_start_that_fails_is_tried_somewhere_else_then_told_and_its_slot_is_free(node: Node) -> None:
    pooled("rare")
    tried = []
    slots = [slot(node), slot(node)]
    for _ in slots:
        assert ask("rare").state == State.STARTING
        partition = Partition.objects.get(deployment__name="rare")
        tried.append(partition.pk)
        tell(node, replicas=(status_of(partition, "starting"),))
        last = Exit(code=1, ago_s=0.1, log_tail="INFO loading\nValueError: no such weights\n")
        tell(node, replicas=(status_of(partition, "exited", pid=0, last_exit=last),))
    standing = ask("rare")
    assert sorted(tried) == sorted(one.pk for one in slots)
    assert standing.state == State.FAILED
    assert standing.message == "its engine ended with code 1: ValueError: no such weights"
    assert 25 < standing.expected_s <= 30
    assert not Partition.objects.filter(deployment__isnull=False).exists()
    assert list(Activation.objects.values_list("state", flat=True)) == ["failed", "failed"]
    later = timezone.now() + timedelta(seconds=31)
    Node.objects.update(last_seen=later)
    assert ask("rare", now=later).state == State.STARTING


def test_of_an_engine_that_ran_out_of_memory_that_is_told_and_not_how_its_server_ended(node: Node) -> None:
    pooled("large")
    partition = slot(node)
    ask("large")
    partition.refresh_from_db()
    tell(node, replicas=(status_of(partition, "starting"),))
    words = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n...\n"
        '  File "/vllm/engine/errors.py", line 1, in wait\n    raise RuntimeError(\n'
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    last = Exit(code=1, ago_s=0.1, log_tail=words)
    tell(node, replicas=(status_of(partition, "exited", pid=0, last_exit=last),))
    ask("large")
    told = Activation.objects.get(state="failed").message
    assert (
        told == "its engine ended with code 1: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    )


@pytest.mark.parametrize("how", ["silent", "lost", "drained", "taken", "too long"])
def test_what_befalls_the_slot_fails_the_start(node: Node, how: str, settings: pytest.FixtureRequest) -> None:
    pooled("rare")
    partition = slot(node)
    now = timezone.now()
    assert ask("rare").state == State.STARTING
    if how == "silent":
        now += timedelta(seconds=60)
    elif how == "lost":
        partition.gpus.update(health="lost")
    elif how == "drained":
        services.drain(node.pk, actor=ADMIN)
    elif how == "taken":
        services.assign(partition.pk, deployment_id=make_deployment("mine").pk, role="aggregated", actor=ADMIN)
    else:
        settings.POOL_START_S = 0.0
    assert ask("rare", now=now + timedelta(milliseconds=1)).state in {State.WAITING, State.STARTING}
    first = Activation.objects.order_by("pk")[0]
    assert first.state == "failed"
    assert first.message
    partition.refresh_from_db()
    assert (partition.deployment.name if partition.deployment else None) in {None, "mine", "rare"}


def test_an_engine_on_a_node_that_fell_silent_is_woken_on_another(node: Node) -> None:
    resident(node, pooled("rare"))
    Node.objects.filter(pk=node.pk).update(last_seen=timezone.now() - timedelta(minutes=5))
    other = slot(make_node("n2"))
    assert ask("rare").state == State.STARTING
    other.refresh_from_db()
    assert other.deployment.name == "rare"


def served_then(node: Node, *reports: dict[str, object]) -> Partition:
    """A model is woken, serves, and then the agent says this of its engine."""
    pooled("rare")
    partition = slot(node)
    ask("rare")
    partition.refresh_from_db()
    tell(node, replicas=(status_of(partition, "ready"),))
    assert ask("rare").state == State.READY
    for report in reports:
        tell(node, replicas=(status_of(partition, **{"pid": 0} | report),))
    partition.refresh_from_db()
    return partition


CRASHED = {"phase": "exited", "last_exit": Exit(code=-11, ago_s=0.1, log_tail="INFO serving\nCUDA error: 700\n")}


def test_an_engine_that_ended_once_keeps_its_slot_for_its_agent_starts_it_again(node: Node) -> None:
    partition = served_then(node, CRASHED, {"phase": "starting", "restarts": 1, "pid": 4243})
    pool.sweep(timezone.now())
    assert ask("rare").state == State.STARTING
    partition.refresh_from_db()
    assert partition.deployment is not None


def test_a_slot_whose_engine_crash_loops_is_given_back_and_the_model_woken_in_another(node: Node) -> None:
    partition = served_then(node, CRASHED, {"phase": "exited", "restarts": 3})
    other = slot(node, memory=96 * GIB)
    pool.sweep(timezone.now())
    partition.refresh_from_db()
    assert partition.deployment is None
    event = AuditEvent.objects.get(verb="release")
    assert (event.actor_name, event.reason) == (
        "pool",
        "its engine does not come back: it ended 3 times in a row: its engine ended with code -11: CUDA error: 700",
    )
    activation = Activation.objects.get()
    assert (activation.state, activation.message) == ("ready", event.reason.partition(": ")[2])
    assert activation.broke_at is not None
    assert ask("rare").state == State.STARTING
    other.refresh_from_db()
    assert other.deployment.name == "rare", "not the smallest, where it broke"


def test_before_the_slot_is_given_back_who_asks_is_served_elsewhere(node: Node) -> None:
    served_then(node, {"phase": "exited", "restarts": 3})
    other = slot(node)
    assert ask("rare").state == State.STARTING
    other.refresh_from_db()
    assert other.deployment.name == "rare"


def test_an_engine_that_breaks_twice_wherever_it_is_rests(node: Node) -> None:
    for _ in range(2):
        partition = served_then(node, {"phase": "exited", "restarts": 3}) if not Activation.objects.exists() else None
        if partition is None:
            assert ask("rare").state == State.STARTING
            partition = Partition.objects.get(deployment__name="rare")
            tell(node, replicas=(status_of(partition, "ready"),))
            assert ask("rare").state == State.READY
            tell(node, replicas=(status_of(partition, "exited", pid=0, restarts=3),))
        pool.sweep(timezone.now())
    standing = ask("rare")
    assert (standing.state, 25 < standing.expected_s <= 30) == (State.FAILED, True)


@pytest.mark.parametrize("how", ["gpu", "silent", "drained", "hangs"])
def test_a_slot_whose_node_or_gpu_is_gone_is_given_back(node: Node, how: str) -> None:
    partition = served_then(node)
    now = timezone.now()
    for number in range(3):
        make_node(f"well-{number}", last_seen=now + timedelta(minutes=30))
    if how == "gpu":
        partition.gpus.update(health="lost")
    elif how == "silent":
        now += timedelta(seconds=90)
    elif how == "drained":
        services.drain(node.pk, actor=ADMIN)
        pool.sweep(now)
        partition.refresh_from_db()
        assert partition.deployment is not None, "its requests end first"
        tell(node, replicas=())
    else:
        make_ready(partition, phase="starting", phase_since=now - timedelta(hours=1))
    pool.sweep(now)
    partition.refresh_from_db()
    assert partition.deployment is None
    assert (Activation.objects.get().broke_at is not None) is (how == "hangs"), "of a lost node its model has no fault"


@pytest.mark.parametrize("why", ["pinned", "dedicated", "brake", "change", "hiccup"])
def test_what_is_not_the_pools_to_give_back_stays(node: Node, why: str) -> None:
    partition = served_then(node, {"phase": "exited", "restarts": 2 if why == "hiccup" else 3})
    if why == "pinned":
        Partition.objects.filter(pk=partition.pk).update(pinned=True)
    elif why == "dedicated":
        Deployment.objects.update(mode="dedicated")
    elif why == "brake":
        for number in range(3):
            make_node(f"gone-{number}", last_seen=timezone.now() - timedelta(seconds=60))
    elif why == "change":
        moved = {"partition": {"id": partition.pk, "name": "n1/p0"}}
        Change.objects.create(state="running", actor_name="olga", moves=[moved], plan={}, steps=[], version=0)
    pool.sweep(timezone.now() + timedelta(seconds=20 if why == "hiccup" else 0))
    partition.refresh_from_db()
    assert partition.deployment is not None


@pytest.mark.parametrize(("was_ready", "state"), [(True, "ready"), (False, "failed")])
def test_a_slot_that_was_taken_meanwhile_counts_against_nobody(node: Node, was_ready: bool, state: str) -> None:
    """The only slot stays open to it. Where its engine was ready before anybody noted that, it was woken."""
    pooled("rare")
    partition = slot(node)
    ask("rare")
    partition.refresh_from_db()
    if was_ready:
        tell(node, replicas=(status_of(partition, "ready"),))
        partition.refresh_from_db()
    make_ready(partition, deployment=pooled("other"), phase_since=timezone.now() - timedelta(seconds=600))
    used("other", ago_s=500)
    assert ask("rare").state == State.STARTING
    partition.refresh_from_db()
    assert partition.deployment.name == "rare"
    assert [row.state for row in Activation.objects.all()] == ["starting", state]
