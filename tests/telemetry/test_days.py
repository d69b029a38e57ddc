"""On PostgreSQL alone: SQLite keeps plain tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.telemetry import days, pruning, rollup, series
from controlplane.telemetry.models import GpuMinute, GpuSample
from tests.factories import make_gpu

NOON = datetime(2031, 5, 14, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _on_postgres(db: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a table a day is PostgreSQL's")


def tables(name: str = "telemetry_gpusample") -> dict[str, int]:
    """The rows of each of its tables."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", [name])
        found = {}
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            found[table.removeprefix(f"{name}_")] = cursor.fetchone()[0]
    return found


def sample(gpu: Any, at: datetime, utilization: float = 0.5) -> None:
    GpuSample.objects.create(gpu=gpu, at=at, utilization=utilization)


def test_days_are_made_ahead_and_take_over_what_came_before_they_were() -> None:
    gpu = make_gpu()
    sample(gpu, NOON)
    sample(gpu, NOON - timedelta(days=9))
    assert tables()["default"] == 2
    for _ in range(2):
        days.make_ahead(NOON)
    sample(gpu, NOON + timedelta(days=3))
    assert tables() == {"default": 1, "20310514": 1, "20310515": 0, "20310516": 0, "20310517": 1}
    assert GpuSample.objects.count() == 3


def test_a_day_is_dropped_when_all_of_it_is_old_and_its_minutes_and_other_days_stay() -> None:
    gpu = make_gpu()
    days.make_ahead(NOON)
    midnight = NOON + timedelta(hours=12)
    for at in (midnight - timedelta(minutes=9), midnight + timedelta(minutes=9)):
        sample(gpu, at)
    rollup.advance((midnight + timedelta(minutes=30)).timestamp())
    pruning.prune((NOON + timedelta(hours=59)).timestamp())  # 48 h after 23 h of the first day
    assert "20310514" in tables()
    pruning.prune((NOON + timedelta(hours=60)).timestamp())
    assert "20310514" not in tables()
    assert (GpuSample.objects.count(), GpuMinute.objects.count()) == (1, 2)
    assert tables("telemetry_gpuminute")["20310514"] == 1


def test_a_chart_across_midnight_reads_two_days_and_looks_at_no_other() -> None:
    gpu = make_gpu()
    days.make_ahead(NOON)
    midnight = int(NOON.replace(hour=0).timestamp()) + 86400
    for n, value in ((-10, 0.25), (0, 0.75)):
        sample(gpu, datetime.fromtimestamp(midnight + n, UTC), value)
    over = series.Span(midnight - 10, midnight + 10, 10)
    points = series.read(series.of_gpu(gpu), "utilization", over)["series"][0]["points"]
    assert points == [[midnight - 10, 0.25], [midnight, 0.75]]
    rows = GpuSample.objects.filter(gpu=gpu, at__gte=NOON, at__lt=NOON + timedelta(hours=1))
    assert "20310516" not in rows.explain()


def test_an_installation_that_has_rows_keeps_them_all_and_numbers_go_on() -> None:
    gpu = make_gpu()
    MigrationExecutor(connection).migrate([("telemetry", "0003_engines_rows_by_time")])
    assert tables() == {}
    for n in range(2):
        sample(gpu, NOON + timedelta(days=n))
    before = list(GpuSample.objects.order_by("pk").values_list("pk", "at", "utilization"))
    MigrationExecutor(connection).migrate([("telemetry", "0004_a_table_a_day")])
    assert tables() == {"20310514": 1, "20310515": 1, "default": 0}
    assert list(GpuSample.objects.order_by("pk").values_list("pk", "at", "utilization")) == before
    sample(gpu, NOON)
    assert GpuSample.objects.latest("pk").pk > before[-1][0]
