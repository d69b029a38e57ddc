"""What previews know of the load: by partition from engines, by deployment from the gateway's records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.domain.impact import Load, Served
from controlplane.planning import load
from controlplane.telemetry import services, valkey
from controlplane.telemetry.ingest import Ingest
from tests.api.conftest import make_request
from tests.factories import make_deployment, make_partition, make_ready
from tests.telemetry.reports import replica, report

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    monkeypatch.setattr(services, "ingest", Ingest(settings.SAMPLE_EVERY_S))
    valkey.reset()
    yield
    valkey.reset()


@pytest.fixture
def figures(broker: Any) -> Any:
    """A Valkey that answers."""
    valkey.reset()
    return broker


def test_running_and_waiting_come_from_the_engines(figures: Any) -> None:
    busy = make_ready(make_partition(role="decode", generation=1))
    services.take(busy.node, report(busy.node, 1, replicas=(replica(busy, running=5.0, waiting=2.0),)), timezone.now())
    assert load.live().partitions == {busy.pk: Load(running=5.0, waiting=2.0)}


def test_what_a_silent_node_said_last_is_not_taken_for_now(figures: Any) -> None:
    busy = make_ready(make_partition(role="decode", generation=1))
    past = timezone.now() - timedelta(seconds=60)
    services.take(busy.node, report(busy.node, 1, replicas=(replica(busy, running=5.0),)), past)
    assert load.live().partitions == {}


def test_without_valkey_the_engines_load_is_unknown_and_the_records_still_tell() -> None:
    chat = make_deployment("chat")
    make_request(deployment="chat", ttft_ms=120.0, itl_ms=9.0)
    found = load.live()
    assert found.partitions == {}
    assert found.deployments == {chat.pk: Served(rps=round(1 / 60, 3), ttft_p95_ms=120.0, itl_p95_ms=9.0)}


def test_rates_and_p95_are_each_deployments_own_of_the_last_minute() -> None:
    chat, other, idle = make_deployment("chat"), make_deployment("other"), make_deployment("idle")
    for ttft in range(1, 101):
        make_request(deployment="chat", ttft_ms=float(ttft), itl_ms=None)
    make_request(deployment="other", ttft_ms=7.0, itl_ms=3.0)
    make_request(deployment="other", at=timezone.now() - timedelta(seconds=90), ttft_ms=5000.0)
    make_request(deployment="other", outcome="rejected", ttft_ms=None)
    found = load.live().deployments
    assert found[chat.pk] == Served(rps=round(100 / 60, 3), ttft_p95_ms=96.0, itl_p95_ms=None)
    assert found[other.pk] == Served(rps=round(1 / 60, 3), ttft_p95_ms=7.0, itl_p95_ms=3.0)
    assert found[idle.pk] == Served(rps=0.0, ttft_p95_ms=None, itl_p95_ms=None)
