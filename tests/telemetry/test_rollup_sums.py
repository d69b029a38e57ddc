"""What holds of any history: nothing is lost or counted twice on the way to wider rows, however they are made."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies, rollup
from controlplane.telemetry.models import (
    EngineHour,
    EngineMinute,
    EngineSample,
    FleetSample,
    GpuHour,
    GpuMinute,
    GpuSample,
    Rollup,
)
from tests.factories import make_gpu, make_partition
from tests.telemetry.reports import T0

pytestmark = pytest.mark.django_db
HOUR0 = int(T0 // 3600 * 3600)
LENGTH_S = 2 * 3600
OVER = HOUR0 + LENGTH_S + 300  # all rows of these hours can be made by then
WIDER: tuple[Any, ...] = (GpuMinute, GpuHour, EngineMinute, EngineHour)


def fill(seed: int) -> None:
    """Two GPUs and two engines whose reports come and go; some minutes of theirs are unknown, and not zero."""
    noise = random.Random(seed)
    for gpu, partition in [(make_gpu(), make_partition()) for _ in range(2)]:
        gpus, engines = [], []
        for second in seconds(noise):
            at, is_known = datetime.fromtimestamp(HOUR0 + second, UTC), second // 60 % 7 != seed % 7
            value = noise.random() if is_known else None
            gpus.append(GpuSample(gpu=gpu, at=at, utilization=value, reports=noise.randint(1, 10)))
            ended = latencies.encode({"ttft": Counts(0.5, {(0.0, 0.1): float(noise.randint(0, 9))})})
            told = {"generation_tps": value, "covered_s": noise.uniform(1, 10), "reports": noise.randint(1, 10)}
            engines.append(EngineSample(partition=partition, at=at, running=value, latencies=ended, **told))
        GpuSample.objects.bulk_create(gpus)
        EngineSample.objects.bulk_create(engines)


def seconds(noise: random.Random) -> list[int]:
    """Windows of ten seconds with gaps of up to a quarter of an hour."""
    found, at = [], 0
    while at < LENGTH_S:
        end = min(LENGTH_S, at + noise.randrange(10, 1200, 10))
        found += range(at, end, 10)
        at = end + noise.randrange(0, 900, 10)
    return found


def told(model: Any, width: int) -> dict[tuple[int, int], list[Any]]:
    """By owner and row of that width: reports, seconds covered, requests ended, and the mean of what is known."""
    if model in (GpuSample, GpuMinute, GpuHour):
        found = [(*row, row[-1], None) for row in model.objects.values_list("gpu_id", "at", "utilization", "reports")]
    else:
        columns = ("partition_id", "at", "generation_tps", "reports", "covered_s", "latencies")
        found = list(model.objects.values_list(*columns))
    made: dict[tuple[int, int], list[Any]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0])
    for owner, at, value, reports, weight, text in found:
        sums = made[owner, int(at.timestamp()) // width * width]
        ended = sum(counts.total for counts in latencies.decode(text).values())
        known = (0.0, 0.0) if value is None else (value * weight, weight)
        for place, more in enumerate((reports, weight, ended, *known)):
            sums[place] += more
    return {place: [*sums, top / bottom if bottom else None] for place, (*sums, top, bottom) in made.items()}


def everything() -> list[Any]:
    """Of floats nine digits: PostgreSQL adds the same rows up in another order each time."""
    return [
        [tuple(_nine_digits(value) for value in row) for row in model.objects.order_by("pk").values_list()]
        for model in (*WIDER, FleetSample)
    ]


def _nine_digits(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, str):
        return re.sub(r"\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]):.9g}", value)
    return value


@pytest.mark.parametrize("seed", range(2))
def test_sums_are_kept_gaps_stay_gaps_and_the_unknown_stays_unknown(seed: int) -> None:
    fill(seed)
    rollup.advance(OVER)
    for raw, minute, hour in ((GpuSample, GpuMinute, GpuHour), (EngineSample, EngineMinute, EngineHour)):
        for model, width in ((minute, 60), (hour, 3600)):
            found, true = told(model, 1), told(raw, width)
            assert found.keys() == true.keys()
            assert [found[place] for place in true] == [pytest.approx(sums) for sums in true.values()]


@pytest.mark.parametrize("seed", range(2))
def test_rows_are_the_same_made_at_once_in_pieces_late_or_all_over_again(seed: int) -> None:
    fill(seed)
    noise = random.Random(seed)
    for now in sorted(noise.uniform(HOUR0, OVER) for _ in range(12)):
        rollup.advance(now, work_s=noise.choice((0.0, 20.0)))
    rollup.advance(OVER)
    in_pieces = everything()
    assert all(in_pieces)
    rollup.advance(OVER)
    assert everything() == in_pieces
    Rollup.objects.all().delete()  # as if nothing were made: all of it again, over what is there
    rollup.advance(OVER + 3000)
    assert everything() == in_pieces
    for model in (*WIDER, FleetSample, Rollup):
        model.objects.all().delete()
    rollup.advance(OVER)
    assert everything() == in_pieces
