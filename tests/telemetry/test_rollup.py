from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies, pruning, rollup, series
from controlplane.telemetry.models import EngineMinute, EngineSample, FleetSample, GpuHour, GpuMinute, GpuSample
from tests.factories import make_gpu, make_partition
from tests.telemetry.reports import T0

pytestmark = pytest.mark.django_db
HOUR0 = T0 // 3600 * 3600


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(HOUR0 + seconds, UTC)


def fill(gpu: Any, start: int, end: int, value: float | None = 0.5) -> None:
    rows = [
        GpuSample(gpu=gpu, at=at(second), utilization=value, memory_used_bytes=7) for second in range(start, end, 10)
    ]
    GpuSample.objects.bulk_create(rows)


def minutes() -> list[tuple[float, float | None, int]]:
    found = GpuMinute.objects.order_by("at").values_list("at", "utilization", "reports")
    return [(when.timestamp() - HOUR0, value, reports) for when, value, reports in found]


def test_a_minute_is_the_weighted_mean_of_its_windows_and_a_gap_stays_one() -> None:
    gpu = make_gpu()
    GpuSample.objects.create(gpu=gpu, at=at(0), utilization=0.2, reports=9)
    GpuSample.objects.create(gpu=gpu, at=at(10), utilization=1.0, reports=1)
    GpuSample.objects.create(gpu=gpu, at=at(20), utilization=None, reports=5)
    fill(gpu, 120, 180, None)
    rollup.advance(HOUR0 + 200)
    assert minutes() == [(0, pytest.approx(0.28), 15), (120, None, 6)]


def test_doing_it_again_or_after_a_pause_counts_nothing_twice() -> None:
    gpu = make_gpu()
    fill(gpu, 0, 7200)
    for now in (200, 200, 3000, 7800, 7800):
        rollup.advance(HOUR0 + now)
    assert [reports for _, _, reports in minutes()] == [6] * 120
    assert list(GpuHour.objects.values_list("reports", "utilization")) == [(360, 0.5), (360, 0.5)]


def test_a_window_that_came_late_is_in_its_minute_after_the_next_run() -> None:
    gpu = make_gpu()
    fill(gpu, 0, 60, 0.0)
    rollup.advance(HOUR0 + 90)
    fill(gpu, 30, 40, 1.0)
    rollup.advance(HOUR0 + 150)
    assert minutes() == [(0, pytest.approx(1 / 7), 7)]


def test_histograms_add_up_and_percentiles_are_the_same_from_every_width() -> None:
    partition = make_partition()
    for second in range(0, 60, 10):
        told = {"ttft": Counts(0.3, {(0.0, 0.1): 1.0, (0.1, 0.2 + second / 100): 2.0})}
        EngineSample.objects.create(
            partition=partition,
            at=at(second),
            latencies=latencies.encode(told),
            ttft_ms=100.0,
            running=1.0,
            covered_s=10.0,
        )
    over = series.Span(int(HOUR0), int(HOUR0) + 60, 60)
    raw = series.read(series.of_fleet(), "ttft_ms", over, quantiles=(0.5, 0.95))["series"]
    rollup.advance(HOUR0 + 90)
    wide = series.Span(int(HOUR0), int(HOUR0) + 60, 60, 60)
    EngineSample.objects.all().delete()
    assert latencies.decode(EngineMinute.objects.get().latencies)["ttft"].total == 18.0
    for subject in (series.of_fleet(), series.of_partition(partition)):
        found = series.read(subject, "ttft_ms", wide, quantiles=(0.5, 0.95))["series"]
        assert [line["points"] for line in found] == [line["points"] for line in raw]


def test_the_fleet_is_drawn_from_its_own_rows_and_the_newest_from_raw_ones() -> None:
    for number in range(11):
        fill(make_gpu(), 0, 120, number / 10)
    rollup.advance(HOUR0 + 90)
    GpuSample.objects.filter(at__lt=at(60)).delete()
    assert FleetSample.objects.count() == 1
    over = series.Span(int(HOUR0), int(HOUR0) + 120, 60, 60)
    band = series.read(series.of_fleet(), "utilization", over, shape="band")["bands"][0]["points"]
    quantiles = [pytest.approx(value) for value in (0.1, 0.5, 0.9)]
    assert band == [[HOUR0, *quantiles], [HOUR0 + 60, *quantiles]]
    total = series.read(series.of_fleet(), "memory", over, shape="total")["series"][0]["points"]
    assert total == [[HOUR0, 77], [HOUR0 + 60, 77]]


def test_what_is_old_goes_by_its_width_and_not_before_wider_rows_are_made() -> None:
    gpu = make_gpu()
    fill(gpu, 0, 120)
    later = HOUR0 + 49 * 3600
    pruning.prune(later)
    assert GpuSample.objects.count() == 12
    rollup.advance(later)
    pruning.prune(later)
    assert (GpuSample.objects.count(), GpuMinute.objects.count()) == (0, 2)
    pruning.prune(HOUR0 + 31 * 86400)
    assert (GpuMinute.objects.count(), GpuHour.objects.count()) == (0, 1)
    pruning.prune(HOUR0 + 401 * 86400)
    assert (GpuHour.objects.count(), FleetSample.objects.count()) == (0, 0)
