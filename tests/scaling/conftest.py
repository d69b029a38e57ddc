"""A fleet of one node, a deployment with an engine, and what its engine and the gateway say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.fleet.models import Deployment, Node
from controlplane.gateway.models import DemandMinute, RequestRecord
from controlplane.planning.models import RecordedSpan
from controlplane.scaling import gathering
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready

Tell = Callable[..., None]


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[int, EngineFigures]:
    """What engines say, by partition. Valkey's part is tested where it is read."""
    told: dict[int, EngineFigures] = {}
    monkeypatch.setattr(gathering, "_figures", lambda: told)
    return told


@pytest.fixture
def node() -> Node:
    return make_node("n1")


@pytest.fixture
def llama(node: Node, figures: dict[int, EngineFigures]) -> Deployment:
    """One aggregated engine of 1 GPU, with objectives, idle; and two free partitions of 1 GPU."""
    row = make_deployment("llama", slo_ttft_ms=500, slo_itl_ms=50)
    engine = make_ready(
        make_partition(node, gpus=[make_gpu(node)], deployment=row, role="aggregated"),
        phase_since=timezone.now() - timedelta(hours=1),
    )
    for _ in range(2):
        make_partition(node, gpus=[make_gpu(node)])
    figures[engine.pk] = EngineFigures(running=0.0, waiting=0.0, kv_usage=0.0)
    return row


@pytest.fixture
def ended(now: datetime) -> Tell:
    """Requests that ended within the last minute."""

    def tell(name: str, *, ttft_ms: float, itl_ms: float, number: int = 20) -> None:
        RequestRecord.objects.bulk_create(
            RequestRecord(
                at=now - timedelta(seconds=30), deployment=name, kind="chat", outcome="ok", status=200,
                path="aggregated", prompt_tokens=100, completion_tokens=50, ttft_ms=ttft_ms, itl_ms=itl_ms,
                total_ms=ttft_ms + 50 * itl_ms, request_id=str(place), streamed=True,
            )
            for place in range(number)
        )  # fmt: skip

    return tell


@pytest.fixture
def asked(now: datetime) -> Tell:
    """Requests a minute, for so many minutes up to now."""

    def tell(name: str, *, per_minute: int, minutes: int = 120) -> None:
        end = now.replace(second=0, microsecond=0)
        RecordedSpan.objects.create(start=end - timedelta(minutes=minutes), end=now, source="gateway")
        DemandMinute.objects.bulk_create(
            DemandMinute(deployment=name, minute=end - timedelta(minutes=ago), arrivals=per_minute)
            for ago in range(1, minutes + 1)
        )

    return tell
