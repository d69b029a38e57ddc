"""What was learned of models' habits is read anew when it was learned anew, whoever did."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.domain.recurrence import EDGES_S, Recurrence
from controlplane.fleet import pool_habits
from controlplane.fleet.models import PoolHint
from controlplane.fleet.pool_habits import FRESH, Habit

pytestmark = pytest.mark.django_db
NAMES = ("a", "b", "c")


def learned(now: datetime, *names: str) -> list[Habit]:
    return [Habit(name, Recurrence((0.001,) * len(EDGES_S), now.timestamp()), None) for name in names]


def test_what_another_process_learned_is_read_at_the_next_look_and_else_one_small_query_does() -> None:
    now = timezone.now()
    pool_habits.write(learned(now, "a", "b"), now)
    assert pool_habits.read(now, NAMES) == learned(now, "a", "b")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert pool_habits.read(now, ("b",)) == learned(now, "b")
    assert len(queries) == 1
    assert "rates" not in queries[0]["sql"]

    PoolHint.objects.all().delete()
    assert pool_habits.read(now, NAMES) == []
    later = now + timedelta(seconds=1)
    PoolHint.objects.bulk_create([pool_habits._row(one, later) for one in learned(later, "c", "a")])
    assert pool_habits.read(later, NAMES) == learned(later, "a", "c")


def test_what_was_learned_long_ago_says_nothing() -> None:
    now = timezone.now()
    pool_habits.write(learned(now, "a"), now)
    assert pool_habits.read(now + FRESH - timedelta(seconds=1), NAMES)
    assert pool_habits.read(now + FRESH, NAMES) == []
