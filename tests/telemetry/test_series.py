from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.telemetry import series
from controlplane.telemetry.models import EngineSample, GpuSample
from tests.factories import make_gpu, make_node, make_partition
from tests.telemetry.reports import T0

pytestmark = pytest.mark.django_db
LATER = T0 + 10_000


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(T0 + seconds, UTC)


def fill(gpu: Any, *values: float | None, every: int = 10) -> None:
    for number, value in enumerate(values):
        GpuSample.objects.create(gpu=gpu, at=at(number * every), utilization=value)


def read(subject: series.Subject, metric: str, start: float, end: float, step: int | None = None) -> dict[str, Any]:
    return series.read(subject, metric, series.span(T0 + start, T0 + end, step, LATER))


def values(found: dict[str, Any], number: int = 0) -> list[float | None]:
    return [value for _, value in found["series"][number]["points"]]


def test_each_window_is_a_point_at_its_start() -> None:
    gpu = make_gpu()
    fill(gpu, 0.1, 0.2, 0.3)
    found = read(series.of_gpu(gpu), "utilization", 0, 30)
    assert found["series"] == [{"id": gpu.pk, "label": "GPU 0", "points": [[T0, 0.1], [T0 + 10, 0.2], [T0 + 20, 0.3]]}]
    assert (found["unit"], found["step"]) == ("ratio", 10)


def test_steps_are_means() -> None:
    gpu = make_gpu()
    fill(gpu, 0.0, 1.0, 0.5, 0.5)
    assert values(read(series.of_gpu(gpu), "utilization", 0, 40, step=20)) == [0.5, 0.5]


def test_gaps_are_points_without_a_value() -> None:
    gpu = make_gpu()
    fill(gpu, 0.1, None)
    GpuSample.objects.create(gpu=gpu, at=at(40), utilization=0.5)
    assert values(read(series.of_gpu(gpu), "utilization", 0, 50)) == [0.1, None, None, None, 0.5]


def test_a_mean_leaves_the_unknown_out() -> None:
    gpu = make_gpu()
    fill(gpu, 0.4, None)
    assert values(read(series.of_gpu(gpu), "utilization", 0, 20, step=20)) == [0.4]


def test_a_day_comes_in_at_most_600_points() -> None:
    over = series.span(T0 - 86400, T0, 10, LATER)
    assert over.step % 10 == 0
    assert len(over.points) <= series.MAX_POINTS + 1


def test_what_cannot_be_written_yet_is_no_gap() -> None:
    gpu = make_gpu()
    fill(gpu, 0.1, 0.2)
    now = T0 + 25  # the window that began at 20 is open
    found = series.read(series.of_gpu(gpu), "utilization", series.span(T0, now, None, now))
    assert values(found) == [0.1, 0.2]


def test_the_future_holds_no_points() -> None:
    assert list(series.span(T0 + 100, T0 + 200, None, T0).points) == []


def test_a_node_gives_a_series_per_gpu_or_per_partition() -> None:
    node = make_node()
    one, two = make_partition(node), make_partition(node)
    EngineSample.objects.create(partition=two, at=at(0), generation_tps=42.0)
    by_gpu = read(series.of_node(node), "memory", 0, 10)
    by_engine = read(series.of_node(node), "generation_tps", 0, 10)
    assert [line["label"] for line in by_gpu["series"]] == ["GPU 0", "GPU 1"]
    assert [(line["id"], line["label"]) for line in by_engine["series"]] == [(one.pk, "p0"), (two.pk, "p1")]
    assert values(by_engine, 1) == [42.0]


def test_a_partition_gives_its_gpus_and_its_engine() -> None:
    partition = make_partition(gpus=2)
    make_partition(partition.node)
    assert len(read(series.of_partition(partition), "power", 0, 10)["series"]) == 2
    assert len(read(series.of_partition(partition), "running", 0, 10)["series"]) == 1


@pytest.mark.parametrize("metric", series.METRICS)
def test_every_metric_can_be_read(metric: str) -> None:
    partition = make_partition()
    gpu = partition.gpus.get()
    GpuSample.objects.create(gpu=gpu, at=at(0), utilization=3, memory_used_bytes=3, power_w=3, temperature_c=3)
    engine = dict.fromkeys(("running", "waiting", "kv_usage", "prompt_tps", "generation_tps", "ttft_ms", "itl_ms"), 3.0)
    EngineSample.objects.create(partition=partition, at=at(0), **engine)
    assert values(read(series.of_partition(partition), metric, 0, 10)) == [3.0]


def test_changes_are_marked() -> None:
    partition, other = make_partition(), make_partition()
    for number, (verb, subject) in enumerate([("assign", partition), ("cordon", partition.node), ("assign", other)]):
        AuditEvent.objects.create(
            at=at(number * 10),
            actor_name="olga",
            source="web",
            verb=verb,
            subject_type=subject._meta.model_name,
            subject_id=subject.pk,
            subject_name=str(subject),
        )
    found = read(series.of_partition(partition), "utilization", 0, 100)
    assert [(mark["at"], mark["kind"]) for mark in found["marks"]] == [(T0, "assign"), (T0 + 10, "cordon")]
    assert found["marks"][0]["text"] == f"olga: assign {partition}"


def test_a_whole_node_takes_few_queries(django_assert_num_queries: Any) -> None:
    node = make_node(gpus=8)
    with django_assert_num_queries(4):
        read(series.of_node(node), "utilization", 0, 100)
