"""Records and demand reach the database in batches, survive its absence, and can be summed up and pruned."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.gateway import records, services, tasks
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.models import ApiKey, DemandMinute, RequestRecord
from controlplane.gateway.openai import Usage
from controlplane.gateway.records import COLUMNS, Recorder
from controlplane.gateway.summary import live_summary
from controlplane.gateway.trip import Trip


def trip(**changes: Any) -> Trip:
    one = Trip("chat", time.time(), 100.0)
    values = {
        "deployment": "tiny", "streamed": True, "outcome": "ok", "status": 200, "path": "two_step",
        "prefill": "n/p", "decode": "n/d", "attempts": 1, "prompt_tokens": 12, "completion_tokens": 5,
        "cached_tokens": 4, "prefill_began": 100.0, "prefilled": 100.02, "first": 100.05, "last": 100.09,
        "ended": 100.1,
    }  # fmt: skip
    for name, value in (values | changes).items():
        setattr(one, name, value)
    return one


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(Metrics(), keep=10)


@pytest.mark.django_db
def test_every_column_is_written(recorder: Recorder, actor: Actor) -> None:
    key, _ = services.create_key(name="one", actor=actor)
    one = trip(key=key.pk, continued=1, continued_from="n/d0")
    recorder.add(one)

    recorder.flush()

    row = RequestRecord.objects.get()
    assert row.api_key == key
    assert abs(row.at.timestamp() - one.at) < 0.001
    assert (row.request_id, row.deployment, row.kind, row.streamed) == (one.id, "tiny", "chat", True)
    assert (row.outcome, row.status, row.error, row.path) == ("ok", 200, "", "two_step")
    assert (row.prefill, row.decode, row.attempts) == ("n/p", "n/d", 1)
    assert (row.continued, row.continued_from) == (1, "n/d0")
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (12, 5, 4)
    assert (row.prefill_ms, row.transfer_ms, row.ttft_ms) == pytest.approx((20.0, 30.0, 50.0))
    assert (row.itl_ms, row.total_ms) == pytest.approx((10.0, 100.0))


def test_the_columns_are_the_models() -> None:
    """A column added to the model must be written too."""
    assert {field.attname for field in RequestRecord._meta.concrete_fields} - {"id"} == set(COLUMNS)


@pytest.mark.django_db(transaction=True)
def test_a_row_of_a_key_deleted_meanwhile_is_written_without_it(recorder: Recorder, actor: Actor) -> None:
    key, _ = services.create_key(name="one", actor=actor)
    recorder.add(trip(key=key.pk))
    ApiKey.objects.filter(pk=key.pk).delete()
    recorder.flush()
    assert RequestRecord.objects.get().api_key_id is None


@pytest.mark.django_db
def test_while_the_database_is_away_the_newest_are_kept_and_the_lost_counted(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(records, "_insert", away)  # the true edge: the database
        for i in range(8):
            recorder.add(trip(attempts=i))
        recorder.flush()
        for i in range(8, 14):
            recorder.add(trip(attempts=i))
        recorder.flush()
        assert recorder.dropped == 4
    recorder.flush()
    assert list(RequestRecord.objects.order_by("id").values_list("attempts", flat=True)) == list(range(4, 14))
    assert "forebay_gateway_records_dropped_total 4.0" in recorder._metrics.text().decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("count", "kept"),
    [(-1, 0), (2**70, 2**31 - 1), pytest.param(10**400, 2**31 - 1, id="huge"), (2**31 - 1, 2**31 - 1)],
)
def test_counts_that_no_engine_can_mean_are_bounded(recorder: Recorder, count: int, kept: int) -> None:
    one = trip()
    one.take_usage(Usage(count, count, Usage.Details(count)))
    recorder.add(one)
    recorder.demand.begin("tiny", one.at)
    recorder.demand.end("tiny", one.at, prompt=one.prompt_tokens or 0, completion=0, failed=False)

    recorder.flush(demand=True)

    row = RequestRecord.objects.get()
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (kept, kept, kept)
    assert DemandMinute.objects.get().prompt_tokens == kept
    assert recorder.dropped == 0


@pytest.mark.django_db
def test_text_that_no_database_takes_is_made_fit(recorder: Recorder) -> None:
    recorder.add(trip(error="a\0b\ud800" + "x" * 300, decode="d" * 200, deployment="t" * 200))
    recorder.flush()
    row = RequestRecord.objects.get()
    assert row.error == "ab?" + "x" * 252
    assert (row.decode, row.deployment) == ("d" * 120, "t" * 120)


@pytest.mark.django_db(transaction=True)
def test_a_record_that_the_database_does_not_take_is_dropped_alone(
    recorder: Recorder, actor: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = services.create_key(name="one", actor=actor)
    ApiKey.objects.filter(pk=key.pk).delete()
    recorder.add(trip(attempts=1, key=key.pk))
    recorder.add(trip(attempts=2**70, error="what a client sent"))
    recorder.add(trip(attempts=3))

    recorder.flush()

    assert list(RequestRecord.objects.order_by("id").values_list("attempts", flat=True)) == [1, 3]
    assert recorder.dropped == 1
    assert "forebay_gateway_records_dropped_total 1.0" in recorder._metrics.text().decode()
    assert "what a client sent" not in caplog.text
    recorder.add(trip(attempts=4))
    recorder.flush()
    assert RequestRecord.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_table_not_migrated_yet_drops_no_record(recorder: Recorder) -> None:
    """The fault is not the records': they wait."""
    rename = "ALTER TABLE {} RENAME TO {}"
    table = RequestRecord._meta.db_table
    recorder.add(trip())
    with connection.cursor() as cursor:
        cursor.execute(rename.format(table, "away"))
        try:
            recorder.flush()
        finally:
            cursor.execute(rename.format("away", table))
    assert (recorder.dropped, RequestRecord.objects.count()) == (0, 0)
    recorder.flush()
    assert RequestRecord.objects.count() == 1


@pytest.mark.django_db
def test_a_record_that_cannot_be_measured_stops_no_thread(recorder: Recorder) -> None:
    recorder.add(trip(prompt_tokens=-1))
    recorder.flush()
    assert RequestRecord.objects.get().prompt_tokens == 0


def test_a_queue_that_nobody_empties_is_bounded(recorder: Recorder) -> None:
    for _ in range(25):
        recorder.add(trip())
    assert len(recorder._new) == 10
    assert recorder.dropped == 15


@pytest.mark.django_db
def test_demand_of_several_flushes_and_gateways_adds_up() -> None:
    one, other = Recorder(Metrics()), Recorder(Metrics())
    minute = time.time() // 60 * 60
    for recorder, peak in ((one, 2), (other, 3)):
        for _ in range(peak):
            recorder.demand.begin("tiny", minute)
        recorder.demand.end("tiny", minute, prompt=10, completion=5, failed=True)
        recorder.flush(demand=True)
    one.demand.begin("tiny", minute)
    one.flush(demand=True)

    row = DemandMinute.objects.order_by("minute").first()
    assert row is not None
    assert (row.arrivals, row.prompt_tokens, row.completion_tokens, row.errors) == (6, 20, 10, 2)
    assert row.peak_in_flight == 3
    assert row.minute.timestamp() == minute


@pytest.mark.django_db(transaction=True)
def test_the_thread_writes_what_is_left_when_it_stops() -> None:
    recorder = Recorder(Metrics(), period_s=60.0)
    recorder.start()
    recorder.add(trip())
    minute = time.time() // 60 * 60
    recorder.demand.begin("tiny", minute)
    recorder.demand.end("tiny", minute + 1.0, prompt=1, completion=1, failed=False)
    recorder.stop(20.0)
    assert RequestRecord.objects.count() == 1
    assert DemandMinute.objects.get().arrivals == 1


@pytest.mark.django_db
def test_the_summary_is_of_the_last_minute(recorder: Recorder) -> None:
    for i in range(100):
        recorder.add(trip(first=100.0 + (i + 1) / 1000, last=100.0 + (i + 1) / 1000 + 0.02, ended=100.5))
        recorder.flush()
    recorder.add(trip(deployment="other", first=0.0, ended=100.5))
    recorder.add(trip(deployment="old", at=time.time() - 100))
    recorder.add(trip(deployment="", outcome="rejected", status=429))
    recorder.flush()

    seen = live_summary()

    assert seen["window_s"] == 60
    assert seen["rps"] == pytest.approx(101 / 60, abs=0.01)
    assert seen["tokens_out_per_s"] == pytest.approx(101 * 5 / 60, abs=0.01)
    assert seen["ttft_ms"] == {"p50": pytest.approx(51, abs=1.5), "p95": pytest.approx(96, abs=1.5)}
    assert seen["itl_ms"]["p50"] == pytest.approx(5.0, abs=0.1)
    assert seen["active_models"] == 2


@pytest.mark.django_db
def test_a_request_still_running_makes_its_model_active(recorder: Recorder) -> None:
    recorder.demand.begin("long", time.time() - 5)
    recorder.flush(demand=True)
    assert live_summary()["active_models"] == 1


@pytest.mark.django_db
def test_no_requests_are_no_latencies_rather_than_zero() -> None:
    seen = live_summary()
    assert (seen["rps"], seen["active_models"], seen["tokens_out_per_s"]) == (0.0, 0, 0.0)
    assert seen["ttft_ms"] == seen["itl_ms"] == {"p50": None, "p95": None}


@pytest.mark.django_db
def test_pruning_keeps_what_is_young(recorder: Recorder) -> None:
    keep = timedelta(days=settings.RECORD_KEEP_DAYS)
    for age in (timedelta(0), keep - timedelta(hours=1), keep + timedelta(hours=1)):
        recorder.add(trip(at=(timezone.now() - age).timestamp()))
    recorder.flush()
    tasks.prune()
    assert RequestRecord.objects.count() == 2
    tasks.prune()
    assert RequestRecord.objects.count() == 2
