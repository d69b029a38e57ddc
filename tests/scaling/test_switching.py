"""A plan that goes from a pair of engines to one that does both, where that is clearly cheaper."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db.models import F

from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.services import advancing
from controlplane.planning import profiles
from controlplane.scaling import plans, policy
from controlplane.scaling.models import LaneLook, ScalingPlan
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpus, make_model, make_node, make_partition, make_ready
from tests.planning import profile_tables as tables
from tests.scaling.conftest import Tell
from tests.scaling.test_floors import GPU
from tests.scaling.test_floors import asked as asked_with_records

pytestmark = pytest.mark.django_db
ANNA = Actor.system("anna")
IDLE = EngineFigures(running=1.0, waiting=0.0, kv_usage=0.1)


@pytest.fixture
def chat(figures: dict[int, EngineFigures], now: datetime) -> Deployment:
    """A pair of engines of four GPUs each, measured, asked so little that one would do for both phases."""
    node: Node = make_node("alpha")
    model = make_model("llama", config={"num_attention_heads": 16, "num_key_value_heads": 4, "hidden_size": 1024})
    row = make_deployment("chat", model=model, slo_ttft_ms=2000, slo_itl_ms=60)
    for role in ("prefill", "decode"):
        engine = make_ready(
            make_partition(node, gpus=make_gpus(node, 4), deployment=row, role=role),
            phase_since=now - timedelta(hours=1),
        )
        figures[engine.pk] = IDLE
    profiles.import_table(tables.splitwise(gpu="h100"), actor=Actor.system("test"), gpus={"h100": GPU})
    asked_with_records(now, rate=2.0)
    return row


def cleared(now: datetime) -> None:
    """As if it had been clear for two hours."""
    assert LaneLook.objects.exclude(other_since=None).exists()
    LaneLook.objects.update(other_since=now - timedelta(hours=2))


def carried_out(figures: dict[int, EngineFigures], now: datetime) -> None:
    """Nodes have done what they were told."""
    for row in Partition.objects.exclude(deployment=None):
        figures[make_ready(row, phase_since=now - timedelta(hours=1)).pk] = IDLE
    Partition.objects.filter(deployment=None).update(phase="", observed_role="", observed_generation=F("generation"))


def test_it_is_proposed_once_it_has_been_clear_for_hours_and_applied_through_the_one_door(
    chat: Deployment, now: datetime
) -> None:
    assert propose(now) is None
    look = LaneLook.objects.get(role="decode")
    assert look.other_counts == {"aggregated": 1} and look.other_ratio == 0.5 and look.other_since == now
    cleared(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches and plan.state == "open"
    roles = sorted((move["deployment"] or 0, move["role"] or "") for move in plan.moves)
    assert roles == [(0, ""), (chat.pk, "aggregated")], "one engine becomes it, the other one is released"
    assert any("another kind of engines: Aggregated engines would do with 0.50" in move["why"] for move in plan.moves)
    assert "people apply" in plan.held_back[0] or "applied by people" in plan.held_back[0]
    again = propose(now + timedelta(seconds=2))
    assert again is not None and again.pk == plan.pk
    plan.refresh_from_db()
    done = plans.apply(plan.pk, actor=ANNA, reason="cheaper")
    assert done.state == "applied" and done.change is not None
    cleared_roles = set(Partition.objects.filter(deployment=chat).values_list("role", flat=True))
    assert "aggregated" in cleared_roles or done.change.state != "done"


def test_it_is_never_applied_by_itself_unless_the_policy_permits_just_that(chat: Deployment, now: datetime) -> None:
    policy.change(actor=ANNA, auto_apply=True)
    assert propose(now) is None
    cleared(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.state == "open"
    assert plan.held_back == [
        "people switch between aggregated and disaggregated engines: the policy does not permit it automatically"
    ]
    policy.change(actor=ANNA, auto_switch=True)
    done = propose(now + timedelta(seconds=2))
    assert done is not None and (done.pk, done.state, done.automatic) == (plan.pk, "applied", True)


def test_what_presses_takes_its_place_and_one_that_was_turned_down_rests_for_a_day(
    chat: Deployment, now: datetime, ended: Tell
) -> None:
    assert propose(now) is None
    cleared(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches
    plans.dismiss(plan.pk, actor=ANNA, reason="not now")
    ScalingPlan.objects.update(decided_at=now - timedelta(hours=2))
    assert propose(now + timedelta(seconds=2)) is None
    ScalingPlan.objects.update(decided_at=now - timedelta(hours=25))
    fresh = propose(now + timedelta(seconds=3))
    assert fresh is not None and fresh.switches
    node = Node.objects.get()
    make_partition(node, gpus=make_gpus(node, 4))
    ended("chat", ttft_ms=100.0, itl_ms=90.0)
    other = propose(now + timedelta(seconds=4))
    assert other is not None and not other.switches and other.pk != fresh.pk
    fresh.refresh_from_db()
    assert fresh.state == "superseded"


def test_where_its_engines_have_no_room_nothing_is_proposed_and_nothing_released(
    chat: Deployment, now: datetime
) -> None:
    assert propose(now) is None
    cleared(now)
    Partition.objects.update(pinned=True)
    assert propose(now + timedelta(seconds=1)) is None


def test_engines_found_for_another_rate_are_not_switched_to(chat: Deployment, now: datetime) -> None:
    assert propose(now) is None
    cleared(now)
    LaneLook.objects.update(other_rate=1.0, other_counts={"aggregated": 2})
    plan = propose(now + timedelta(seconds=1))
    look = LaneLook.objects.get(role="decode")
    assert (look.other_rate, look.other_counts) == (2.0, {"aggregated": 1}), "it was compared anew"
    assert plan is not None and any("aggregated 0 to 1" in move["why"] for move in plan.moves)


def test_an_open_one_stays_when_the_comparison_is_an_hour_old(chat: Deployment, now: datetime) -> None:
    assert propose(now) is None
    cleared(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches
    LaneLook.objects.update(other_at=now - timedelta(minutes=61))
    again = propose(now + timedelta(seconds=2))
    assert again is not None and again.pk == plan.pk


def test_after_it_the_old_engines_are_not_asked_for_again(
    chat: Deployment, now: datetime, figures: dict[int, EngineFigures]
) -> None:
    assert propose(now) is None
    cleared(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches
    change = plans.apply(plan.pk, actor=ANNA, reason="cheaper").change
    assert change is not None
    node = Node.objects.get()
    for _ in range(2):
        make_partition(node, gpus=make_gpus(node, 4))
    states = []
    for second in range(2, 6):
        assert propose(now + timedelta(seconds=second)) is None
        states.append(change.state)
        carried_out(figures, now)
        advancing.advance(change.pk)
        change.refresh_from_db()
    assert states == ["running", "running", "done", "done"]
    [look] = LaneLook.objects.all()
    assert (look.role, look.floor, look.other_since) == ("aggregated", 1, None)
    assert look.other.startswith("Disaggregated engines would take")
