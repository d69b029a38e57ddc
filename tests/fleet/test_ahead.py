"""Models that are woken before anybody asks, into free slots only; whether somebody then came is noted."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.domain.recurrence import EDGES_S, Recurrence
from controlplane.domain.rhythm import Rhythm
from controlplane.fleet import pool_habits, pool_use, pool_view, verified
from controlplane.fleet.models import Activation, Node, Partition
from controlplane.fleet.pool_habits import Habit
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import State
from tests.factories import make_node
from tests.fleet.test_pool import ask, pooled, resident, slot, used

pytestmark = pytest.mark.django_db
OFTEN = (1 / 200.0,) * len(EDGES_S)
SELDOM = (1 / 90_000.0,) * len(EDGES_S)


@pytest.fixture
def now() -> datetime:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))
    return timezone.now()


@pytest.fixture
def node() -> Node:
    return make_node("n1", last_seen=timezone.now() + timedelta(hours=2))


def habit(name: str, now: datetime, rates: tuple[float, ...] | None = OFTEN, *, due_in_s: float | None = None) -> Habit:
    rhythm = Rhythm(3600.0, now.timestamp() + due_in_s - 3600.0, 60.0, 0.95) if due_in_s is not None else None
    return Habit(name, Recurrence(rates, now.timestamp() - 900.0) if rates else None, rhythm)


def woken() -> list[str]:
    rows = Activation.objects.filter(cause="ahead").order_by("pk")
    return list(rows.values_list("deployment__name", flat=True))


def test_who_is_likely_to_be_asked_for_is_woken_while_more_slots_are_free_than_are_held_for_others(
    node: Node, now: datetime
) -> None:
    for name in ("often", "seldom", "unknown"):
        pooled(name)
    slot(node)
    pool_habits.write([habit("often", now), habit("seldom", now, SELDOM)], now)
    pool.sweep(now, free=1)
    assert woken() == [], "the last free slot is for whoever comes"
    slot(node)
    pool.sweep(now, free=1)
    pool.sweep(now, free=1)
    assert woken() == ["often"]
    [row] = Activation.objects.all()
    assert row.reason.startswith("asked for within 370 s with a chance of 84%; ")
    assert AuditEvent.objects.get(verb="assign").reason.startswith("ahead of requests; asked for within")


def test_who_is_due_by_its_clock_takes_the_last_free_slot_but_nobodys(node: Node, now: datetime) -> None:
    pooled("hourly")
    resident(node, pooled("there"))
    used("there", ago_s=4000)
    pool_habits.write([habit("hourly", now, None, due_in_s=90.0)], now)
    pool.sweep(now, free=0)
    assert woken() == []
    slot(node)
    pool.sweep(now, free=0)
    assert woken() == ["hourly"]


def test_no_more_than_two_are_woken_ahead_at_once(node: Node, now: datetime) -> None:
    for number in range(4):
        pooled(f"m{number}")
        slot(node)
    pool_habits.write([habit(f"m{number}", now) for number in range(4)], now)
    pool.sweep(now, free=0)
    pool.sweep(now, free=0)
    assert len(woken()) == 2


@pytest.mark.parametrize(("predict", "left"), [(True, "unlikely"), (False, "likely")])
def test_the_least_likely_to_be_asked_for_leaves_and_without_prediction_the_longest_idle(
    node: Node, now: datetime, settings: pytest.FixtureRequest, predict: bool, left: str
) -> None:
    settings.POOL_PREDICT = predict
    for name, ago_s in (("likely", 500), ("unlikely", 400)):
        resident(node, pooled(name))
        used(name, ago_s=ago_s)
    pooled("rare")
    pool_habits.write([habit("likely", now), habit("unlikely", now, SELDOM)], now)
    assert ask("rare").state == State.STARTING
    assert Activation.objects.get().evicted == left
    said = "and asked for again soon with a chance of 1%" if predict else "the least to be missed"
    assert said in AuditEvent.objects.get(verb="assign").reason


def test_without_prediction_nobody_is_woken_ahead(node: Node, now: datetime, settings: pytest.FixtureRequest) -> None:
    settings.POOL_PREDICT = False
    pooled("often")
    slot(node)
    pool_habits.write([habit("often", now)], now)
    pool.sweep(now, free=0)
    assert woken() == []


def test_whether_somebody_came_in_time_is_noted_and_counted(node: Node, now: datetime) -> None:
    ended = now - timedelta(seconds=400)
    for name, last in (("came", 200), ("late", 50), ("not", 2000)):
        row = Activation.objects.create(
            deployment=pooled(name), cause="ahead", state="ready", asked_at=ended - timedelta(seconds=9),
            wanted_at=ended, placed_at=ended - timedelta(seconds=9), ended_at=ended,
        )  # fmt: skip
        assert row.came_at is None
        pool_use.write("gw:1", [(name, 0, (now - timedelta(seconds=last)).timestamp())])
    pool.sweep(now, free=0)
    assert Activation.objects.get(came_at__isnull=False).deployment.name == "came"
    told = pool_view.tally(now)
    assert (told.ahead, told.came, told.ready) == (3, 1, 3)


def test_who_was_woken_in_vain_again_and_again_is_left_asleep(node: Node, now: datetime) -> None:
    often = pooled("often")
    slot(node)
    pool_habits.write([habit("often", now)], now)
    for hours in (2, 4):
        ended = now - timedelta(hours=hours)
        Activation.objects.create(
            deployment=often, cause="ahead", state="ready", asked_at=ended, wanted_at=ended, placed_at=ended,
            ended_at=ended,
        )  # fmt: skip
    pool.sweep(now, free=0)
    assert len(woken()) == 2, "both long ago"
    assert Partition.objects.get().deployment is None
    Activation.objects.filter(pk=Activation.objects.latest("pk").pk).update(came_at=now)
    Activation.objects.filter(came_at=None).update(
        **dict.fromkeys(("placed_at", "ended_at"), now - timedelta(hours=30))
    )
    pool.sweep(now, free=0)
    assert len(woken()) == 3


def test_while_a_slot_is_free_those_of_others_are_not_read(node: Node, now: datetime) -> None:
    resident(make_node("n2", last_seen=node.last_seen), pooled("there"))
    used("there", ago_s=4000)
    slot(node)
    pooled("first")
    pooled("second")

    def slots_read(name: str) -> list[bool]:
        with CaptureQueriesContext(connection) as queries:
            standing = ask(name)
        assert standing.state == State.STARTING, standing
        told = [query["sql"] for query in queries if '"fleet_partition"."pool"' in query["sql"].partition("WHERE")[2]]
        return ['"fleet_partition"."deployment_id" IS NULL' in sql for sql in told]

    assert slots_read("first") == [True]
    assert slots_read("second") == [True, False]
