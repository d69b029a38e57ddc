"""A look proposes what the load takes; a person applies it, or it is applied within its rails."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db.models import F

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.scaling import Kind
from controlplane.fleet import services
from controlplane.fleet.errors import Refused
from controlplane.fleet.models import Change, Deployment, Node, Partition, PoolAim
from controlplane.scaling import plans, policy
from controlplane.scaling.models import LaneLook, ScalingPlan
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready
from tests.scaling.conftest import Tell

pytestmark = pytest.mark.django_db
ANNA = Actor.system("anna")
Figures = dict[int, EngineFigures]


def engines(deployment: Deployment) -> int:
    return deployment.partitions.count()


def test_while_nothing_presses_nothing_is_proposed_and_each_role_says_why(llama: Deployment, now: datetime) -> None:
    assert propose(now) is None
    look = LaneLook.objects.get()
    assert (look.deployment, look.role, look.count, look.wanted) == (llama, "aggregated", 1, 1)


def test_late_tokens_propose_an_engine_more_and_nothing_moves_until_somebody_says_so(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    assert [(move["deployment"], move["role"]) for move in plan.moves] == [(llama.pk, "aggregated")]
    assert plan.moves[0]["why"] == "llama aggregated 1 to 2: ITL p95 70 ms of 50 ms"
    assert "automatic applying is off" in plan.held_back[0]
    assert (engines(llama), Change.objects.count()) == (1, 0)
    assert plan.preview["effects"][0]["engines_after"] == 2


def test_the_same_look_again_keeps_the_plan_and_another_takes_its_place(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    first, again = propose(now), propose(now + timedelta(seconds=1))
    assert first is not None
    assert again is not None
    assert (again.pk, again.made_at, again.seen_at) == (first.pk, first.made_at, now + timedelta(seconds=1))
    llama.slo_itl_ms = 500
    llama.save()
    assert propose(now) is None
    assert ScalingPlan.objects.get().state == ScalingPlan.State.SUPERSEDED


def test_a_plan_that_is_applied_is_a_change_that_can_be_undone(llama: Deployment, now: datetime, ended: Tell) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    plan = plans.apply(plan.pk, actor=ANNA, reason="looks right")
    assert (plan.state, plan.decided_by, plan.automatic) == ("applied", "anna", False)
    assert engines(llama) == 2
    assert plan.change is not None
    assert plan.change.actor_name == "anna"
    assert AuditEvent.objects.filter(verb="apply", subject_type="scalingplan", reason="looks right").exists()
    with pytest.raises(Refused, match="is applied"):
        plans.apply(plan.pk, actor=ANNA)


def test_one_that_is_dismissed_is_not_proposed_again_for_an_hour(llama: Deployment, now: datetime, ended: Tell) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    plans.dismiss(plan.pk, actor=ANNA, reason="a test of ours")
    assert propose(now + timedelta(seconds=1)) is None
    plan.refresh_from_db()
    plan.decided_at = now - timedelta(minutes=61)
    plan.save()
    assert propose(now) is not None


def test_one_that_was_undone_is_not_proposed_again_for_an_hour_either(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    change = plans.apply(plan.pk, actor=ANNA).change
    assert change is not None
    Change.objects.filter(pk=change.pk).update(state=Change.State.DONE)
    undo = Change.objects.create(kind="undo", version=1, undoes=change, actor_name="anna", state=Change.State.DONE)
    Partition.objects.filter(pk=plan.moves[0]["partition"]).update(deployment=None, role="")
    llama.partitions.update(observed_generation=F("generation"))
    assert propose(now + timedelta(seconds=1)) is None
    Change.objects.filter(pk=undo.pk).update(created_at=now - timedelta(minutes=61))
    assert propose(now + timedelta(seconds=2)) is not None


def test_with_automatic_applying_on_it_is_applied_within_the_rails_and_not_beyond(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    policy.change(actor=ANNA, auto_apply=True, most_gpus=1)
    held = propose(now)
    assert held is not None
    assert held.held_back == ["2 GPUs for dedicated engines would be more than 1"]
    policy.change(actor=ANNA, most_gpus=None)
    done = propose(now)
    assert done is not None
    assert (done.pk, done.state, done.automatic, done.decided_by) == (held.pk, "applied", True, "planner")
    assert engines(llama) == 2
    event = AuditEvent.objects.get(verb="change", subject_type="change")
    assert (event.actor_name, event.source) == ("planner", "system")
    assert "ITL p95 70 ms of 50 ms" in event.reason


def test_a_fleet_that_changed_since_makes_it_stale(llama: Deployment, now: datetime, ended: Tell, node: Node) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    services.set_pool(plan.moves[0]["partition"], pool=True, actor=ANNA)
    with pytest.raises(services.Stale, match="was faster"):
        plans.apply(plan.pk, actor=ANNA)
    assert (engines(llama), ScalingPlan.objects.get().state) == (1, "open")


def test_an_engine_too_many_goes_after_a_quiet_time(
    llama: Deployment, now: datetime, figures: Figures, node: Node, asked: Tell
) -> None:
    second = make_ready(make_partition(node, gpus=[make_gpu(node)], deployment=llama, role="aggregated"))
    figures[second.pk] = EngineFigures(running=0.0, waiting=0.0, kv_usage=0.0)
    assert propose(now) is None
    assert LaneLook.objects.get().fewer_since == now
    later = now + timedelta(seconds=policy.current().quiet_s)
    Node.objects.update(last_seen=later)
    plan = propose(later)
    assert plan is not None
    assert [move["deployment"] for move in plan.moves] == [None]
    assert LaneLook.objects.get().kind == Kind.QUIET


def test_engines_that_tell_nothing_change_nothing(
    llama: Deployment, now: datetime, ended: Tell, figures: Figures
) -> None:
    ended("llama", ttft_ms=9000.0, itl_ms=900.0)
    figures.clear()
    assert propose(now) is None
    assert LaneLook.objects.get().kind == Kind.HOLD


def test_who_has_no_partition_left_is_told_as_short(llama: Deployment, now: datetime, ended: Tell) -> None:
    Partition.objects.filter(deployment__isnull=True).update(pinned=True)
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    assert propose(now) is None
    look = LaneLook.objects.get()
    assert (look.wanted, look.short) == (2, 1)


def test_what_was_late_before_the_last_engine_came_is_no_reason_for_another(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=9000.0, itl_ms=70.0)
    llama.partitions.update(phase_since=now)
    assert propose(now) is None


def test_one_that_is_asked_for_and_has_no_engine_gets_one(llama: Deployment, now: datetime, asked: Tell) -> None:
    make_deployment("mistral")
    asked("mistral", per_minute=6)
    plan = propose(now)
    assert plan is not None
    assert "it is asked for and has no engine" in plan.moves[0]["why"]


def test_free_partitions_go_to_the_pool_that_is_short_of_slots(llama: Deployment, now: datetime) -> None:
    make_deployment("rare", mode="pooled")
    PoolAim.objects.create(pk=1, slots=1, keep_alive_s=300, reason="forecast", at=now)
    plan = propose(now)
    assert plan is not None
    assert (plan.moves, [row["pool"] for row in plan.pool]) == ([], [True])
    plans.apply(plan.pk, actor=ANNA)
    assert Partition.objects.filter(pool=True).count() == 1
    assert propose(now) is None


def test_an_empty_slot_beyond_what_the_pool_shall_hold_serves_who_is_short(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    free = Partition.objects.filter(deployment__isnull=True)
    free.update(pool=True)
    PoolAim.objects.create(pk=1, slots=1, keep_alive_s=300, reason="forecast", at=now)
    ended("llama", ttft_ms=100.0, itl_ms=120.0)
    plan = propose(now)
    assert plan is not None
    assert ([row["pool"] for row in plan.pool], len(plan.moves)) == ([False], 1)
    plans.apply(plan.pk, actor=ANNA)
    assert (engines(llama), Partition.objects.filter(pool=True).count()) == (2, 1)


def test_a_pool_that_is_short_of_large_slots_is_given_a_large_one(llama: Deployment, now: datetime) -> None:
    make_deployment("rare", mode="pooled")
    node = make_node("n9")
    small = [make_partition(node, gpus=1, pool=True) for _ in range(3)]
    large = make_partition(node, gpus=2)
    PoolAim.objects.create(pk=1, slots=2, by_gpus={"1": 1, "2": 1}, keep_alive_s=300, reason="forecast", at=now)
    plan = propose(now)
    assert plan is not None
    (row,) = plan.pool
    assert (row["partition"], row["pool"]) == (large.pk, True), "three slots of one GPU are none of two"
    assert row["why"] == "the pool shall hold 1 slot with 2 GPUs or more and has 0"
    plans.apply(plan.pk, actor=ANNA)
    assert propose(now) is None and Partition.objects.filter(pk__in=[one.pk for one in small], pool=True).count() == 3


def test_the_pool_gives_back_no_slot_of_a_size_that_it_wants(llama: Deployment, now: datetime, ended: Tell) -> None:
    Partition.objects.filter(deployment__isnull=True).update(pinned=True)
    node = make_node("n9")
    small, large = (make_partition(node, gpus=count, pool=True) for count in (1, 2))
    PoolAim.objects.create(pk=1, slots=1, by_gpus={"1": 0, "2": 1}, keep_alive_s=300, reason="forecast", at=now)
    ended("llama", ttft_ms=100.0, itl_ms=120.0)
    plan = propose(now)
    assert plan is not None
    assert [row["partition"] for row in plan.pool] == [small.pk] and large.pk not in [
        one["partition"] for one in plan.moves
    ]


def test_an_engine_that_is_lost_with_its_node_gets_another_one(llama: Deployment, now: datetime, asked: Tell) -> None:
    asked("llama", per_minute=6)
    away = make_node("n2")
    lost = make_ready(make_partition(away, gpus=[make_gpu(away)], deployment=llama, role="aggregated"))
    for name in ("n3", "n4", "n5"):  # enough that one silent node is no reason to brake
        make_node(name)
    Node.objects.filter(pk=away.pk).update(last_seen=now - timedelta(minutes=2))
    plan = propose(now)
    assert plan is not None
    assert "1 of its engines will not come back" in plan.moves[0]["why"]
    assert lost.pk not in [move["partition"] for move in plan.moves]
    look = LaneLook.objects.get()
    assert (look.count, look.lost, look.wanted, look.kind) == (1, 1, 2, "lost")


def test_one_that_stopped_is_led_back_and_its_partition_left_alone_for_a_while(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    policy.change(actor=ANNA, auto_apply=True)
    first = propose(now)
    assert first is not None
    assert first.change is not None
    partition = first.moves[0]["partition"]
    change = first.change
    change.steps[0]["state"], change.state, change.message = "failed", Change.State.STOPPED, "it does not start"
    change.save()
    second = propose(now + timedelta(seconds=1))
    change.refresh_from_db()
    assert change.backwards
    assert AuditEvent.objects.get(verb="roll-back").reason == "it stopped: it does not start"
    assert second is None or partition not in [move["partition"] for move in second.moves]


def test_a_change_of_a_person_stays_stopped(llama: Deployment, now: datetime, ended: Tell) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    plan = propose(now)
    assert plan is not None
    plan = plans.apply(plan.pk, actor=ANNA)
    Change.objects.update(state=Change.State.STOPPED)
    propose(now + timedelta(seconds=1))
    assert Change.objects.get().state == Change.State.STOPPED


def test_what_is_proposed_superseded_and_held_is_on_record_once_with_its_reason(
    llama: Deployment, now: datetime, ended: Tell
) -> None:
    def told() -> list[tuple[str, str]]:
        return list(AuditEvent.objects.filter(subject_type="scalingplan").order_by("pk").values_list("verb", "reason"))

    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    for second in range(3):
        propose(now + timedelta(seconds=second))
    proposed = [("propose", "llama aggregated 1 to 2: ITL p95 70 ms of 50 ms")]
    assert told() == proposed, "the same look again says nothing new"
    policy.change(actor=ANNA, auto_apply=True, most_gpus=1)
    for second in range(3, 6):
        propose(now + timedelta(seconds=second))
    held = [("hold", "2 GPUs for dedicated engines would be more than 1")]
    assert told() == [*proposed, *held]
    llama.slo_itl_ms = 500
    llama.save()
    propose(now + timedelta(seconds=6))
    assert told() == [*proposed, *held, ("supersede", "this look came to no moves")]
