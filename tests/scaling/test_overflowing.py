"""What there is no GPU for is lent a slot of the pool; what the slot serves counts as waiting for an engine."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.fleet import pool_use, verified
from controlplane.fleet.models import Activation, Deployment, Node, Partition, PoolAim
from controlplane.scaling import gathering
from controlplane.scaling.gathering import gather
from controlplane.scaling.models import LaneLook
from controlplane.scaling.policy import current
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpu, make_partition, make_ready
from tests.scaling.conftest import Tell
from workers.contract import Role

pytestmark = pytest.mark.django_db
Figures = dict[int, EngineFigures]


@pytest.fixture
def short(llama: Deployment, node: Node, now: datetime, ended: Tell) -> Deployment:
    """Its tokens are late, no partition is free for it, and the pool has a slot more than is held, with a model in it
    that is not active. The empty one is pinned, so that no plan takes it."""
    Partition.objects.filter(deployment=None).delete()
    Deployment.objects.filter(pk=llama.pk).update(overflow=True, aggregated_max_requests=4)
    make_partition(node, gpus=[make_gpu(node)], pool=True, pinned=True)
    idle = make_deployment("idle", mode="pooled")
    there = make_partition(node, gpus=[make_gpu(node)], pool=True, deployment=idle, role="aggregated")
    make_ready(there, phase_since=now - timedelta(hours=1))
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=1, reason="", at=now)
    verified.beat("gw:1", "", now + timedelta(minutes=1))
    pool_use.write("gw:1", [("idle", 0, now.timestamp() - 3000)])
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    return llama


def test_one_that_is_short_is_lent_a_slot(short: Deployment, now: datetime) -> None:
    assert propose(now) is None
    assert LaneLook.objects.get().short == 1
    [activation] = Activation.objects.all()
    assert (activation.cause, activation.evicted) == ("overflow", "idle")
    assert activation.reason.startswith("its plan is short of 1 aggregated engine; ")
    assert Partition.objects.get(overflow=True).deployment == short


def test_it_is_not_where_pooled_models_need_the_slots(short: Deployment, now: datetime) -> None:
    PoolAim.objects.update(slots=2, at=now)
    propose(now)
    assert not Partition.objects.filter(overflow=True)


@pytest.mark.parametrize("columns", [{"overflow": False}, {"aggregated_max_requests": None}])
def test_it_is_not_where_nothing_would_be_sent_there(
    short: Deployment, now: datetime, columns: dict[str, object]
) -> None:
    Deployment.objects.filter(pk=short.pk).update(**columns)
    propose(now)
    assert not Partition.objects.filter(overflow=True)


def test_one_that_sent_nothing_to_its_last_slot_is_not_lent_another_for_an_hour(
    short: Deployment, now: datetime
) -> None:
    def had(minutes_ago: int, *, used: bool) -> None:
        Activation.objects.all().delete()
        at = now - timedelta(minutes=minutes_ago)
        Activation.objects.create(
            deployment=short, cause="overflow", state="ready", asked_at=at, wanted_at=at, ended_at=at
        )
        last = at + timedelta(minutes=1 if used else -1)
        pool_use.write("gw:1", [("llama", 0, last.timestamp())])

    had(30, used=False)
    propose(now)
    assert not Partition.objects.filter(overflow=True)
    had(30, used=True)
    propose(now)
    assert Partition.objects.filter(overflow=True).exists()


def test_a_lent_slot_is_no_engine_of_a_lane_and_what_it_serves_counts_as_waiting(
    llama: Deployment, node: Node, now: datetime, figures: Figures
) -> None:
    lent = make_ready(make_partition(node, pool=True, deployment=llama, role="aggregated", overflow=True))
    figures[lent.pk] = EngineFigures(running=3.0, waiting=1.0, kv_usage=0.5)
    [one] = gather(gathering.fleet(now), current(), now)
    lane = one.lanes[Role.AGGREGATED]
    assert (lane.count, lane.ready, lane.load.waiting, lane.load.kv_usage) == (1, 1, 4.0, 0.0)
    plan = propose(now)
    assert plan is None or all(move["partition"] != lent.pk for move in plan.moves)
