from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection
from prometheus_client import REGISTRY

from controlplane.audit.models import AuditEvent
from controlplane.domain.histograms import Counts
from controlplane.telemetry import latencies, recorder
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.models import EngineSample, GpuSample
from controlplane.telemetry.recorder import Recorder
from tests.factories import make_node, make_partition
from tests.telemetry.reports import T0, replica, report, sample
from workers.contract import Histogram

pytestmark = pytest.mark.django_db


@pytest.fixture
def filled(ingest: Ingest) -> Any:
    """A node with one GPU in a partition that reported for a window."""
    partition = make_partition()
    gpu = partition.gpus.get()
    for second in range(10):
        status = replica(partition, generation_tokens_total=30.0 * second, running=1.0)
        sent = report(partition.node, second, samples=(sample(gpu.uuid, memory_used_bytes=3),), replicas=(status,))
        ingest.accept(partition.node_id, sent, T0 + second)
    return partition


def test_one_row_per_gpu_and_engine_per_window(filled: Any, ingest: Ingest) -> None:
    assert Recorder(ingest).record(T0 + 10.0) == 2
    row = GpuSample.objects.get()
    assert (row.at.timestamp(), row.utilization, row.memory_used_bytes, row.power_w) == (T0, 0.5, 3, None)
    row = EngineSample.objects.get()
    assert (row.partition, row.generation_tps, row.running, row.ttft_ms) == (filled, 30.0, 1.0, None)


def test_a_window_holds_what_ended_in_it_by_interval(ingest: Ingest) -> None:
    partition = make_partition(role="decode")
    for second in range(0, 11, 5):  # histograms come with some reports
        ttft = Histogram((0.1, 0.2), (float(second), 2.0 * second), 2.0 * second, 0.3 * second)
        status = replica(partition, deployment=partition.deployment.name, requests_total=2.0 * second, ttft=ttft)
        ingest.accept(partition.node_id, report(partition.node, second, replicas=(status,)), T0 + second)
    Recorder(ingest).record(T0 + 30)
    first, second = EngineSample.objects.order_by("at")
    assert latencies.decode(first.latencies) == {"ttft": Counts(1.5, {(0.0, 0.1): 5.0, (0.1, 0.2): 5.0})}
    assert latencies.decode(second.latencies) == latencies.decode(first.latencies)
    assert (first.requests_ps, first.reports, first.covered_s) == (2.0, 2, 5.0)
    assert first.deployment_id == partition.deployment_id


def test_an_agent_that_sends_no_histograms_has_its_means(filled: Any, ingest: Ingest) -> None:
    Recorder(ingest).record(T0 + 10.0)
    assert EngineSample.objects.get().latencies is None


def test_a_storm_of_lost_kv_is_one_event_a_minute_with_its_count(ingest: Ingest) -> None:
    partition, made = make_partition(role="prefill"), Recorder(ingest)
    for second in range(6):
        status = replica(partition, kv_expired_total=100.0 + second, nixl_failures_total=7.0)
        ingest.accept(partition.node_id, report(partition.node, second, replicas=(status,)), T0 + second)
        if second >= 3:
            made.tell()
    event = AuditEvent.objects.get()
    assert (event.verb, event.subject_type, event.subject_id) == ("kv-expired", "partition", partition.pk)
    assert (event.after, event.source) == ({"count": 3.0}, "agent")


def test_recording_again_writes_nothing_again(filled: Any, ingest: Ingest) -> None:
    made = Recorder(ingest)
    assert [made.record(T0 + 10.0), made.record(T0 + 11.0)] == [2, 0]


def test_fifty_nodes_take_few_queries(ingest: Ingest, django_assert_max_num_queries: Any) -> None:
    for _ in range(50):
        node = make_node(gpus=2)
        sent = report(node, 1, samples=tuple(sample(gpu.uuid) for gpu in node.gpus.all()))
        ingest.accept(node.pk, sent, T0)
    with django_assert_max_num_queries(8):
        assert Recorder(ingest).record(T0 + 20) == 100


def test_what_is_gone_or_unknown_gets_no_row(filled: Any, ingest: Ingest) -> None:
    sent = report(filled.node, 100, samples=(sample("no such device"),), replicas=(replica(2**63),))
    ingest.accept(filled.node_id, sent, T0 + 10)
    filled.gpus.all().delete()
    filled.delete()
    assert Recorder(ingest).record(T0 + 30) == 0


def test_a_node_cannot_write_samples_of_anothers_partition(filled: Any, ingest: Ingest) -> None:
    stranger = make_node()
    gpu = filled.gpus.get()
    sent = report(stranger, 1, samples=(sample(gpu.uuid, 1.0),), replicas=(replica(filled, running=99.0),))
    ingest.accept(stranger.pk, sent, T0 + 11)
    Recorder(ingest).record(T0 + 30)
    assert list(EngineSample.objects.values_list("running", flat=True)) == [1.0]
    assert list(GpuSample.objects.values_list("utilization", flat=True)) == [0.5]


@pytest.mark.django_db(transaction=True)
def test_windows_wait_for_a_database_that_failed(filled: Any, ingest: Ingest) -> None:
    def away(*_: object) -> None:
        raise OperationalError("the database is away")

    made = Recorder(ingest)
    with connection.execute_wrapper(away), pytest.raises(OperationalError):
        made.record(T0 + 10)
    assert made.record(T0 + 12) == 2


@pytest.mark.django_db(transaction=True)
def test_the_thread_writes_what_is_unfinished_when_it_stops(filled: Any, ingest: Ingest) -> None:
    made = Recorder(ingest)
    made.start()
    made.stop()
    assert (GpuSample.objects.count(), EngineSample.objects.count()) == (1, 1)


def test_windows_that_are_given_up_are_counted(filled: Any, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped() -> float:
        return REGISTRY.get_sample_value("forebay_recorder_windows_dropped_total") or 0.0

    monkeypatch.setattr(recorder, "MAX_BACKLOG", 1)
    before = dropped()
    assert Recorder(ingest).record(T0 + 10) == 1  # of two
    assert dropped() - before == 1
