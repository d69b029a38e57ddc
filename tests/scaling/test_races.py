"""Two control workers look at the same moment: one plan is open, whoever was first."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.fleet.models import Deployment, Node
from controlplane.scaling.models import LaneLook, ScalingPlan
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_gpu, make_partition, make_ready
from tests.fleet.test_races import at_once
from tests.scaling.conftest import Tell

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_looks_at_once_one_plan_is_open_and_neither_fails(
    llama: Deployment, now: datetime, ended: Tell, attempt: int
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    results = at_once(*[lambda: propose(now)] * 4)
    assert [result for result in results if isinstance(result, Exception)] == []
    plan = ScalingPlan.objects.get(state=ScalingPlan.State.OPEN)
    assert {result.pk for result in results if isinstance(result, ScalingPlan)} == {plan.pk}


@pytest.mark.parametrize("attempt", range(3))
def test_what_two_looks_remember_at_once_is_there_whoever_is_last(
    llama: Deployment, now: datetime, ended: Tell, attempt: int
) -> None:
    """The earlier one takes nothing from the later one, and the later one leaves no role without a look."""
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    moments = [now + timedelta(seconds=seconds) for seconds in (0, 2, 1, 3)]
    results = at_once(*[lambda at=at: propose(at) for at in moments])
    assert [result for result in results if isinstance(result, Exception)] == []
    looks = list(LaneLook.objects.filter(deployment=llama))
    assert [look.role for look in looks] == ["aggregated"]
    assert looks[0].at in moments


def test_a_look_that_comes_late_leaves_what_a_newer_one_saw(llama: Deployment, now: datetime, ended: Tell) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    propose(now)
    propose(now - timedelta(seconds=5))
    assert [look.at for look in LaneLook.objects.all()] == [now]


def test_looks_of_before_the_clock_was_set_back_give_way_and_their_times_are_not_taken_over(
    llama: Deployment, now: datetime, node: Node, figures: dict[int, EngineFigures]
) -> None:
    second = make_ready(make_partition(node, gpus=[make_gpu(node)], deployment=llama, role="aggregated"))
    figures[second.pk] = EngineFigures(running=0.0, waiting=0.0, kv_usage=0.0)
    propose(now)
    ahead = now + timedelta(hours=5)
    LaneLook.objects.update(at=ahead, fewer_since=ahead)
    decode = LaneLook.objects.get()
    decode.pk, decode.role = None, "decode"
    decode.save()
    propose(now + timedelta(seconds=1))
    [look] = LaneLook.objects.all()
    assert (look.role, look.at, look.fewer_since) == ("aggregated", *[now + timedelta(seconds=1)] * 2)
