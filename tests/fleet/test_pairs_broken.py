"""When one half of a pair fails or is lost, the other one goes too, and the model is woken anew."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.fleet import services
from controlplane.fleet.models import Activation, Node, Partition
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import State
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.fleet import test_pairs
from tests.fleet.reporting import status_of, tell
from tests.fleet.test_pairs import ADMIN, HALVES, ask, held_by, idle_pair, pair, ready, slot
from workers.contract import Exit

pytestmark = pytest.mark.django_db
_gateway_lives, node = test_pairs._gateway_lives, test_pairs.node


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("how", ["exit", "silent", "lost", "drained", "taken", "too long"])
def test_what_befalls_one_half_while_it_starts_frees_both(
    node: Node, how: str, half: str, settings: pytest.FixtureRequest
) -> None:
    settings.POOL_FREE = 0
    other = make_node("n2")
    pair("large")
    slot(node)
    slot(other)
    now = timezone.now()
    assert ask("large").state == State.STARTING
    struck, well = (held_by("large")[role] for role in (half, "prefill" if half == "decode" else "decode"))
    make_ready(well)
    if how == "exit":
        tell(struck.node, replicas=(status_of(struck, "starting"),))
        last = Exit(code=1, ago_s=0.1, log_tail="ValueError: no such weights\n")
        tell(struck.node, replicas=(status_of(struck, "exited", pid=0, last_exit=last),))
    elif how == "silent":
        Node.objects.filter(pk=struck.node_id).update(last_seen=now - timedelta(minutes=5))
    elif how == "lost":
        struck.gpus.update(health="lost")
    elif how == "drained":
        services.drain(struck.node_id, actor=ADMIN)
    elif how == "taken":
        services.assign(struck.pk, deployment_id=make_deployment("mine").pk, role="aggregated", actor=ADMIN)
    else:
        settings.POOL_START_S = 0.0
    pool.sweep(now + timedelta(milliseconds=1))
    assert held_by("large") == {}
    [activation] = Activation.objects.all()
    assert (activation.state, activation.partition, activation.partner) == ("failed", struck, None)
    assert activation.message.startswith(f"{struck}: ")
    if how == "exit":
        assert activation.message == f"{struck}: its engine ended with code 1: ValueError: no such weights"
        reasons = set(AuditEvent.objects.filter(verb="release").values_list("reason", flat=True))
        assert len(reasons) == 2


def test_a_start_that_failed_is_tried_where_the_half_at_fault_was_not(node: Node) -> None:
    pair("large")
    for _ in range(3):
        slot(node)
    assert ask("large").state == State.STARTING
    struck = held_by("large")["decode"]
    struck.gpus.update(health="lost")
    assert ask("large").state == State.STARTING
    assert struck not in held_by("large").values()
    assert list(Activation.objects.order_by("pk").values_list("state", flat=True)) == ["failed", "starting"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("how", ["crash loop", "gpu", "silent", "released", "taken out"])
def test_when_one_half_is_gone_for_good_the_other_goes_too(node: Node, how: str, half: str) -> None:
    for number in range(3):
        make_node(f"well-{number}", last_seen=timezone.now() + timedelta(minutes=30))
    slots = dict(zip(("prefill", "decode"), (slot(node), slot(make_node("n2"))), strict=True))
    pair("large")
    assert ask("large").state == State.STARTING
    ready("large")
    assert ask("large").state == State.READY
    now, struck = timezone.now(), held_by("large")[half]
    assert slots
    if how == "crash loop":
        make_ready(struck, phase="exited", restarts=3)
    elif how == "gpu":
        struck.gpus.update(health="lost")
    elif how == "silent":
        Node.objects.filter(pk=struck.node_id).update(last_seen=now - timedelta(minutes=5))
    elif how == "released":
        services.release(struck.pk, actor=ADMIN)
    else:
        services.release(struck.pk, actor=ADMIN)
        services.set_pool(struck.pk, pool=False, actor=ADMIN)
    pool.sweep(now)
    assert held_by("large") == {}
    broke = Activation.objects.get(state="ready")
    assert (broke.broke_at is not None) is (how == "crash loop")
    reasons = AuditEvent.objects.filter(verb="release", actor_name="pool").values_list("reason", flat=True)
    assert any("the other half of its pair" in reason for reason in reasons)


def test_a_half_whose_engine_is_started_again_by_its_agent_keeps_its_pair(node: Node) -> None:
    prefill, _ = idle_pair("large", node)
    make_ready(prefill, phase="starting", restarts=1)
    pool.sweep(timezone.now())
    assert ask("large").state == State.STARTING
    assert sorted(held_by("large")) == HALVES


def test_a_node_that_is_drained_ends_its_half_and_the_other_one_is_given_back(node: Node) -> None:
    _, decode = idle_pair("large", node, make_node("n2"))
    make_partition(make_node("n3"))
    assert services.drain_with_moves(node.pk, actor=ADMIN) is None, "it is not moved to what is no slot"
    pool.sweep(timezone.now(), free=0)
    assert sorted(held_by("large")) == HALVES, "its requests end first"
    tell(node, replicas=())
    pool.sweep(timezone.now(), free=0)
    assert held_by("large") == {}
    reasons = AuditEvent.objects.filter(verb="release", subject_id=decode.pk).values_list("reason", flat=True)
    assert "n1 is to run nothing" in reasons[0]


def test_who_assigns_the_halves_by_hand_has_time_to(node: Node) -> None:
    there = pair("large")
    first, second = slot(node), slot(node)
    services.assign(first.pk, deployment_id=there.pk, role="decode", actor=ADMIN)
    make_ready(Partition.objects.get(pk=first.pk))
    pool.sweep(timezone.now())
    services.assign(second.pk, deployment_id=there.pk, role="prefill", actor=ADMIN)
    later = timezone.now() + timedelta(minutes=2)
    Node.objects.update(last_seen=later)
    pool.sweep(later, free=0)
    assert sorted(held_by("large")) == HALVES


def test_who_is_asked_for_is_woken_anew_rather_than_served_by_what_is_left(node: Node) -> None:
    prefill, _ = idle_pair("large", node)
    services.release(prefill.pk, actor=ADMIN)
    slot(node)
    assert ask("large").state == State.STARTING
    assert sorted(held_by("large")) == HALVES
    assert Activation.objects.get().state == "starting"
