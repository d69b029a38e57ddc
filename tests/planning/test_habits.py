"""What is learned of each model from the history, and what the pool does with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import Outage
from controlplane.fleet import pool_habits, pool_keep, verified
from controlplane.fleet.models import Activation, Partition, PoolAim
from controlplane.fleet.services import pool
from controlplane.planning import habits, keeping, pooling
from tests.factories import make_deployment, make_node, make_partition

pytestmark = pytest.mark.django_db
HOUR = 3600.0


@pytest.fixture
def now() -> float:
    """A week of a job on the hour and of a model that is asked for at odd times, up to twenty past an hour."""
    now = timezone.now().timestamp() // HOUR * HOUR + 1200
    hourly = now - 1200 - HOUR * np.arange(100)[::-1]
    rare = now - 7 * 86_400 + np.array([0.3, 41.1, 90.7, 133.2]) * HOUR
    at, model = np.concatenate([hourly, rare]), np.concatenate([np.zeros(100, int), np.ones(4, int)])
    past = Requests.of(("hourly", "rare"), model, at, at + 30)
    keeping.save_import(past, actor=Actor.system("test"), now=now)
    return now


def test_who_comes_often_is_likelier_to_return_and_who_comes_by_the_clock_is_known(now: float) -> None:
    assert habits.refresh(now) == 2
    assert habits.refresh(now + 60) == 0, "it is not learned anew each minute"
    assert habits.refresh(now + 601) == 2
    assert habits.refresh(now - 3600) == 2, "what was learned in the future, by a clock that was wrong, is not kept"
    found = {habit.deployment: habit for habit in habits.learn(now)}
    hourly, rare = (found[name].recurrence for name in ("hourly", "rare"))
    assert hourly.within(600, 3000) > 2 * rare.within(600, 3000)
    assert found["rare"].rhythm is None
    assert found["hourly"].rhythm.period_s == pytest.approx(HOUR)


def test_a_job_on_the_hour_is_woken_just_before_it_and_only_into_a_free_slot(now: float) -> None:
    habits.refresh(now)
    node = make_node("n1", last_seen=timezone.now() + timedelta(days=1))
    make_deployment("hourly", mode="pooled")
    make_deployment("rare", mode="pooled")
    verified.beat("gw:1", "", timezone.now() + timedelta(days=1))
    early, due = (datetime.fromtimestamp(now + ahead, UTC) for ahead in (600, 2280))
    pool_habits.write(habits.learn(now), due)
    pool.sweep(due)
    assert not Activation.objects.exists(), "there is no slot"
    make_partition(node, pool=True)
    pool_habits.write(habits.learn(now), early)
    pool.sweep(early)
    assert not Activation.objects.exists(), "it is not due yet"
    pool_habits.write(habits.learn(now), due)
    pool.sweep(due)
    [activation] = Activation.objects.all()
    assert (activation.deployment.name, activation.cause) == ("hourly", "ahead")
    assert Partition.objects.get().deployment.name == "hourly"


def test_who_is_seen_often_enough_is_kept_as_long_as_its_idle_times_are_worth(
    now: float, settings: pytest.FixtureRequest
) -> None:
    habits.refresh(now)
    at = datetime.fromtimestamp(now, UTC)
    hourly, rare = make_deployment("hourly", mode="pooled"), make_deployment("rare", mode="pooled")
    own = make_deployment("own", mode="pooled", keep_alive_s=77)
    keeps = pool_keep.read(at)
    assert keeps.of(hourly).keep_alive_s == 120, "the shortest there is, and what minutes do not tell"
    assert keeps.of(hourly).why.startswith("0% of its 99 longer idle times end within it")
    assert (keeps.of(rare).keep_alive_s, keeps.of(rare).why) == (300, pool_keep.USUAL)
    assert (keeps.of(own).keep_alive_s, keeps.of(own).why) == (77, pool_keep.OWN)
    assert pool_keep.read(at + timedelta(hours=1)).of(hourly).keep_alive_s == 300, "learned too long ago"
    settings.POOL_LEARN_KEEP_ALIVE = False
    assert pool_keep.read(at).of(hourly).keep_alive_s == 300


def test_idle_times_in_which_nothing_is_on_record_are_left_out() -> None:
    past = Requests.of(("a", "b"), [0, 0, 0, 1, 1], [0, 100, 1000, 50, 500], [10, 110, 1010, 60, 510])
    assert [times.tolist() for times in habits.idle_times(past)] == [[90, 890], [440]]
    some = habits.idle_times(past, [Outage(200, 300)])
    assert [times.tolist() for times in some] == [[90], []]
    assert habits.idle_times(Requests.of((), [], [])) == []


def test_what_the_policy_wants_is_told_to_the_pool(now: float) -> None:
    assert pooling.look() == []
    aim = PoolAim.objects.get()
    assert (aim.slots, aim.keep_alive_s, aim.reason) == (None, 300, "nothing is forecast yet")
