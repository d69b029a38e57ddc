"""A plan that goes to the other kind of engines because that kind alone keeps the objectives, whatever it costs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment, Node
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
MISSES = "Disaggregated engines would keep the objectives, aggregated ones miss ITL of 11 ms by 0."


@pytest.fixture
def chat(figures: dict[int, EngineFigures], now: datetime) -> Deployment:
    """One engine of four GPUs for both phases, which beside a prompt gives no token within 11 ms; room for two more."""
    node: Node = make_node("alpha")
    model = make_model("llama", config={"num_attention_heads": 16, "num_key_value_heads": 4, "hidden_size": 1024})
    row = make_deployment("chat", model=model, slo_ttft_ms=2000, slo_itl_ms=11)
    engine = make_ready(
        make_partition(node, gpus=make_gpus(node, 4), deployment=row, role="aggregated"),
        phase_since=now - timedelta(hours=1),
    )
    figures[engine.pk] = EngineFigures(running=3.0, waiting=0.0, kv_usage=0.1)
    for _ in range(2):
        make_partition(node, gpus=make_gpus(node, 4))
    profiles.import_table(tables.splitwise(gpu="h100"), actor=Actor.system("test"), gpus={"h100": GPU})
    asked_with_records(now, rate=4.0)
    return row


def half_an_hour_ago(now: datetime) -> None:
    """As if it had been so since."""
    assert LaneLook.objects.filter(other_since=now).exists()
    LaneLook.objects.update(other_since=now - timedelta(minutes=30))


def roles(plan: ScalingPlan) -> list[str]:
    return sorted(move["role"] or "" for move in plan.moves)


def test_it_is_proposed_with_what_is_missed_as_its_reason_though_it_costs_three_times_as_much(
    chat: Deployment, now: datetime
) -> None:
    assert propose(now) is None
    look = LaneLook.objects.get()
    assert look.floor is None and look.other_is_better and look.other_ratio is None
    assert look.other_counts == {"prefill": 1, "decode": 2}
    assert propose(now + timedelta(seconds=1)) is None, "it has been so for a second"
    half_an_hour_ago(now)
    plan = propose(now + timedelta(seconds=2))
    assert plan is not None and plan.switches and roles(plan) == ["decode", "decode", "prefill"]
    assert all(MISSES in move["why"] and "1 x TP4 prefill" in move["why"] for move in plan.moves)
    done = plans.apply(plan.pk, actor=ANNA, reason="tokens come late")
    assert done.state == "applied" and done.change is not None


def test_more_engines_that_would_miss_them_too_are_not_proposed_in_its_place(
    chat: Deployment, now: datetime, ended: Tell
) -> None:
    ended("chat", ttft_ms=100.0, itl_ms=19.0)
    usual = propose(now)
    assert usual is not None and roles(usual) == ["aggregated"], "not before it has been so for half an hour"
    half_an_hour_ago(now)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches
    plans.dismiss(plan.pk, actor=ANNA, reason="it shall stay as it is")
    again = propose(now + timedelta(seconds=2))
    assert again is not None and roles(again) == ["aggregated"]


def test_it_is_never_applied_automatically_unless_that_is_permitted_and_does_not_hold_up_what_is(
    chat: Deployment, now: datetime, ended: Tell
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    policy.change(actor=ANNA, auto_apply=True)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches and plan.state == "open"
    assert plan.held_back[0].startswith("people switch between aggregated and disaggregated engines")
    policy.change(actor=ANNA, auto_switch=True, most_gpus=8)
    plan = propose(now + timedelta(seconds=2))
    assert plan is not None and plan.switches and plan.state == "open" and "12 GPUs" in plan.held_back[0]
    policy.change(actor=ANNA, most_gpus=None)
    plan = propose(now + timedelta(seconds=3))
    assert plan is not None and plan.switches and (plan.state, plan.automatic) == ("applied", True)


def test_under_pressure_what_may_be_applied_automatically_comes_first(
    chat: Deployment, now: datetime, ended: Tell
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    policy.change(actor=ANNA, auto_apply=True)
    ended("chat", ttft_ms=100.0, itl_ms=19.0)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and not plan.switches and (plan.state, roles(plan)) == ("applied", ["aggregated"])


def test_what_another_deployment_needs_comes_before_it(
    chat: Deployment, now: datetime, figures: dict[int, EngineFigures], ended: Tell
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    node = Node.objects.get()
    other = make_deployment("other", model=chat.model, min_aggregated=2)
    engine = make_ready(make_partition(node, gpus=make_gpus(node, 4), deployment=other, role="aggregated"))
    figures[engine.pk] = EngineFigures(running=0.0, waiting=0.0, kv_usage=0.0)
    make_partition(node, gpus=make_gpus(node, 4))
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and not plan.switches and {move["deployment"] for move in plan.moves} == {other.pk}


def test_once_the_present_kind_keeps_them_it_is_compared_anew_and_is_due_no_more(
    chat: Deployment, now: datetime
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    Deployment.objects.update(slo_itl_ms=60)
    assert propose(now + timedelta(seconds=1)) is None
    look = LaneLook.objects.get()
    assert look.floor == 1 and look.other_since is None and look.other_ratio is not None and look.other_ratio > 1.0
    assert not look.other_is_better


@pytest.mark.parametrize("rails", [{"most_gpus": 8}, {"moves_per_hour": 2}])
def test_one_that_guard_rails_hold_back_does_not_hold_up_engines_that_come_automatically(
    chat: Deployment, now: datetime, ended: Tell, rails: dict[str, int]
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    policy.change(actor=ANNA, auto_apply=True, auto_switch=True, **rails)
    ended("chat", ttft_ms=100.0, itl_ms=19.0)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and not plan.switches and (plan.state, roles(plan)) == ("applied", ["aggregated"])


def test_where_neither_would_come_automatically_it_is_proposed(chat: Deployment, now: datetime, ended: Tell) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    policy.change(actor=ANNA, auto_apply=True, auto_switch=True, most_gpus=4)
    ended("chat", ttft_ms=100.0, itl_ms=19.0)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches and plan.state == "open"


def test_an_engine_that_is_lost_is_replaced_before_it(
    chat: Deployment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node.objects.get()
    lost = make_ready(make_partition(node, gpus=make_gpus(node, 4), deployment=chat, role="aggregated"))
    assert propose(now) is None
    half_an_hour_ago(now)
    monkeypatch.setattr("controlplane.fleet.services.verdicts.gone", lambda row, at: row.pk == lost.pk)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and not plan.switches and roles(plan) == ["aggregated"]


@pytest.mark.parametrize("changed", ["objective", "lengths"])
def test_it_is_asked_anew_once_an_objective_or_how_sure_of_lengths_it_shall_be_has_changed(
    chat: Deployment, now: datetime, changed: str
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    if changed == "objective":
        Deployment.objects.update(slo_itl_ms=1)
    else:
        policy.change(actor=ANNA, lengths_level=0.99)
    later = now + timedelta(seconds=1)
    assert propose(later) is None
    look = LaneLook.objects.get()
    if changed == "objective":
        assert look.other == "Disaggregated engines on these GPUs would not keep the objectives, however many"
        assert look.other_since is None
    else:
        assert look.other_counts and look.other_since == later, "it counts from now on"


def test_the_time_for_which_it_was_cheaper_is_not_that_for_which_it_alone_will_do(
    chat: Deployment, now: datetime
) -> None:
    Deployment.objects.update(slo_itl_ms=60)
    assert propose(now) is None
    look = LaneLook.objects.get()
    Deployment.objects.update(slo_itl_ms=11)
    assert look.other_ratio is not None and not look.other_missed
    about = look.other_basis.replace("60", "11")
    LaneLook.objects.update(other_since=now - timedelta(hours=1), other_ratio=0.7, other_basis=about, floor_at=None)
    later = now + timedelta(seconds=1)
    assert propose(later) is None
    look = LaneLook.objects.get()
    assert look.other_missed and look.other_ratio is None and look.other_since == later


def test_nothing_has_been_so_while_nothing_is_compared(chat: Deployment, now: datetime) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    Deployment.objects.update(slo_itl_ms=None)
    assert propose(now + timedelta(seconds=1)) is None
    assert LaneLook.objects.get().other_since is None
