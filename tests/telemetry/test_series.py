from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies, series
from controlplane.telemetry.metrics import METRICS
from controlplane.telemetry.models import EngineSample, GpuSample
from tests.factories import make_deployment, make_gpu, make_node, make_partition
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
    named = [METRICS[metric].field, METRICS[metric].over] if not METRICS[metric].of_gpus else []
    counted = {name: Counts(0.003, {(0.003, 0.003): 1.0}) for name in latencies.NAMES}
    engine = dict.fromkeys(filter(None, named), 3.0 if not METRICS[metric].over else 1.0)
    EngineSample.objects.create(partition=partition, at=at(0), latencies=latencies.encode(counted), **engine)
    told = values(read(series.of_partition(partition), metric, 0, 10))
    assert told == [pytest.approx(METRICS[metric].scale if METRICS[metric].over else 3.0)]


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


def test_what_happened_just_now_is_marked_though_no_sample_of_then_can_be_there_yet() -> None:
    node = make_node(gpus=1)
    AuditEvent.objects.create(at=at(99), source="web", verb="cordon", subject_type="node", subject_id=node.pk)
    found = series.read(series.of_node(node), "utilization", series.span(T0, T0 + 100, 10, T0 + 100))
    assert found["to"] < T0 + 99
    assert [mark["at"] for mark in found["marks"]] == [T0 + 99]


def test_a_whole_node_takes_few_queries(django_assert_num_queries: Any) -> None:
    node = make_node(gpus=8)
    with django_assert_num_queries(4):
        read(series.of_node(node), "utilization", 0, 100)


def shaped(subject: series.Subject, metric: str, shape: str, quantiles: tuple[float, ...] = ()) -> dict[str, Any]:
    over = series.span(T0, T0 + 20, 10, LATER)
    return series.read(subject, metric, over, shape=shape, quantiles=quantiles)


def test_a_band_is_of_the_gpus_that_tell() -> None:
    node = make_node(gpus=12)
    for number, gpu in enumerate(node.gpus.order_by("index")):
        fill(gpu, number / 10 if number < 11 else None)
    found = shaped(series.of_node(node), "utilization", "band")
    assert found["series"] == []
    assert found["bands"] == [
        {"label": "p10, p50, p90", "points": [[T0, *map(pytest.approx, (0.1, 0.5, 0.9))], [T0 + 10, None, None, None]]}
    ]


def test_flows_add_up_and_other_figures_have_a_mean() -> None:
    one, two = make_partition(), make_partition()
    for partition, tps, usage in ((one, 10.0, 0.2), (two, 30.0, 0.4)):
        EngineSample.objects.create(partition=partition, at=at(0), generation_tps=tps, kv_usage=usage)
    by_sum = shaped(series.of_fleet(), "generation_tps", "total")["series"]
    by_mean = shaped(series.of_fleet(), "kv_usage", "total")["series"]
    assert by_sum == [{"id": None, "label": "total", "points": [[T0, 40.0], [T0 + 10, None]]}]
    assert by_mean == [{"id": None, "label": "mean", "points": [[T0, pytest.approx(0.3)], [T0 + 10, None]]}]


def test_percentiles_are_of_all_requests_and_not_means_of_percentiles() -> None:
    quick, slow = make_partition(), make_partition()
    for partition, low, high, count in ((quick, 0.0, 0.1, 99), (slow, 1.0, 2.0, 1)):
        counted = {"ttft": Counts(1.0, {(low, high): count})}
        EngineSample.objects.create(partition=partition, at=at(0), latencies=latencies.encode(counted), ttft_ms=1)
    found = shaped(series.of_fleet(), "ttft_ms", "total", (0.5, 0.99, 1.0))["series"]
    told = {line["label"]: line["points"][0][1] for line in found}
    assert told == {"p50": pytest.approx(1000 * 0.1 * 50 / 99), "p99": pytest.approx(100.0), "p100": 2000.0}
    assert all(line["points"][1][1] is None for line in found)


def test_two_processes_that_share_a_window_are_weighed_by_what_each_has_seen() -> None:
    partition = make_partition()
    gpu = partition.gpus.get()
    GpuSample.objects.create(gpu=gpu, at=at(0), utilization=0.2, reports=9)
    GpuSample.objects.create(gpu=gpu, at=at(0), utilization=1.0, reports=1)
    assert values(read(series.of_gpu(gpu), "utilization", 0, 10)) == [pytest.approx(0.28)]
    for tps, covered_s in ((10.0, 8.0), (20.0, 2.0)):
        EngineSample.objects.create(partition=partition, at=at(0), generation_tps=tps, covered_s=covered_s)
    assert values(read(series.of_partition(partition), "generation_tps", 0, 10)) == [pytest.approx(12.0)]


def test_a_deployment_is_what_served_it_at_the_time() -> None:
    deployment = make_deployment()
    partition = make_partition(deployment=deployment)
    gone = make_partition()
    for served, where, tps in ((deployment.pk, gone, 5.0), (deployment.pk, partition, 7.0), (0, partition, 100.0)):
        EngineSample.objects.create(partition=where, deployment_id=served, at=at(0), generation_tps=tps)
    for subject in (series.of_deployment(deployment), series.of_model(deployment.model)):
        assert values(shaped(subject, "generation_tps", "total"))[0] == 12.0


def test_a_label_stands_for_its_nodes() -> None:
    inside, outside = make_node(gpus=1, labels={"rack": "a1"}), make_node(gpus=1, labels={"rack": "a10"})
    fill(inside.gpus.get(), 0.5)
    fill(outside.gpus.get(), 1.0)
    found = shaped(series.of_label("rack", "a1"), "utilization", "series")["series"]
    assert [line["label"] for line in found] == ["GPU 0"]
    assert values({"series": found}) == [0.5, None]


def test_more_lines_than_anybody_reads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_LINES", 2)
    make_node(gpus=3)
    with pytest.raises(series.TooManyLines, match="3 lines"):
        shaped(series.of_fleet(), "utilization", "series")


def test_many_gpus_over_a_long_time_are_read_from_wider_rows() -> None:
    day = series.span(T0 - 86400, T0, 10, T0, lines=64)
    assert (day.width, day.step % 60) == (60, 0)
    assert series.span(T0 - 86400, T0, 10, T0, lines=8000).width == 3600
    assert series.span(T0 - 900, T0, 10, T0, lines=8).width == 0


def test_what_is_no_longer_kept_raw_is_read_from_wider_rows() -> None:
    assert series.span(T0 - 50 * 3600, T0 - 49.9 * 3600, 10, T0).width == 60
    assert series.span(T0 - 40 * 86400, T0 - 39.9 * 86400, 10, T0).width == 3600
