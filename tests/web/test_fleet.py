"""The summary of the fleet page: what changes by the minute, and what of it is not known."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from controlplane.costs.hourly import hourly
from controlplane.costs.models import NodePrice, UsageHour
from controlplane.fleet.models import Gpu, Node, PoolAim
from controlplane.planning import policy
from controlplane.planning.forecasting import LEVELS
from controlplane.planning.models import Forecast
from tests import factories
from tests.web.conftest import Clients


def test_what_is_not_known_is_said_and_is_no_zero(as_role: Clients, db: None) -> None:
    viewer = as_role("viewer")
    page = viewer.get(reverse("web:fleet")).content.decode()
    assert "no forecast now" in page and "no node yet" in page and "held" not in _ahead(page)
    factories.make_node("gpu-1", gpus=2)
    part = viewer.get(reverse("web:fleet-ahead")).content.decode()
    assert "no node has a price" in part and "0.00" not in part and "0%" not in part


def test_models_of_the_next_hour_and_slots_held(as_role: Clients, db: None) -> None:
    viewer, now = as_role("viewer"), timezone.now()
    _say(now - timedelta(minutes=20), 3)
    _say(now - timedelta(minutes=8), 11)
    _say(now - timedelta(minutes=4), 70, horizon_s=600)
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=14, reason="95% of the forecast", at=now)
    part = _ahead(viewer.get(reverse("web:fleet-ahead")).content.decode())
    assert "next hour 11 to 13" in part and "14 slots held" in part and "hx-swap-oob" in part
    Forecast.objects.all().delete()
    _say(now - timedelta(hours=2), 11)
    PoolAim.objects.update(slots=None)
    part = _ahead(viewer.get(reverse("web:fleet-ahead")).content.decode())
    assert "no forecast now" in part and "held" not in part, "of two hours ago it tells nothing of now"


def test_cost_per_hour_is_of_gpus_with_a_price_and_tells_how_many_lack_one(as_role: Clients, db: None) -> None:
    now = timezone.now()
    priced, other = factories.make_node("gpu-1"), factories.make_node("gpu-2")
    for node in (priced, priced, priced, other):
        factories.make_gpu(node)
    Gpu.objects.filter(pk=priced.gpus.first().pk).update(present=False)
    NodePrice.objects.create(node=priced, since=now - timedelta(days=2), per_gpu_hour=9)
    NodePrice.objects.create(node=priced, since=now - timedelta(days=1), per_gpu_hour=Decimal("2.5"))
    gpus = priced.gpus.filter(present=True).count()
    found = hourly(now)
    assert (found.cost, found.nodes, found.unpriced, found.idle) == (gpus * Decimal("2.5"), 2, 1, None)
    part = as_role("viewer").get(reverse("web:fleet-ahead")).content.decode()
    assert "idle share not counted yet" in part and "1 of 2 nodes unpriced" in part


@pytest.mark.parametrize("hours_ago", [0, 1])
def test_the_idle_share_is_of_what_was_paid_lately(hours_ago: int, as_role: Clients, fleet: SimpleNamespace) -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours_ago)
    NodePrice.objects.create(node=fleet.node, since=hour - timedelta(days=9), per_gpu_hour=4)
    for share, cost in (("active", 5), ("reserved", 3), ("idle", 2), ("idle", None)):
        UsageHour.objects.create(hour=hour, node="gpu-1", share=share, gpu_s=3600.0, cost=cost)
    UsageHour.objects.create(hour=hour - timedelta(hours=5), node="gpu-1", share="idle", gpu_s=3600.0, cost=999)
    assert "20% idle, 30% reserved" in as_role("viewer").get(reverse("web:fleet-ahead")).content.decode()


def test_no_more_is_asked_of_the_database_for_more_nodes(
    as_role: Clients, db: None, django_assert_max_num_queries
) -> None:
    viewer: Client = as_role("viewer")
    for number in range(12):
        factories.make_node(f"gpu-{number}", gpus=2)
    with django_assert_max_num_queries(12):
        viewer.get(reverse("web:fleet-ahead"))


def test_a_thousand_nodes_are_asked_for_in_a_moment(as_role: Clients, db: None) -> None:
    """Each open Fleet page asks once a minute."""
    now, viewer = timezone.now(), as_role("viewer")
    nodes = Node.objects.bulk_create(Node(name=f"gpu-{number}", token_hash=str(number)) for number in range(1000))
    Gpu.objects.bulk_create(
        Gpu(node=node, uuid=f"{node.pk}-{at}", index=at, memory_bytes=1) for node in nodes for at in range(8)
    )
    NodePrice.objects.bulk_create(NodePrice(node=node, since=now - timedelta(days=1), per_gpu_hour=2) for node in nodes)
    hour = now.replace(minute=0, second=0, microsecond=0)
    UsageHour.objects.bulk_create(
        UsageHour(hour=hour, node=node.name, share=share, gpu_s=3600.0, cost=4)
        for node in nodes for share in ("active", "idle")
    )  # fmt: skip
    viewer.get(reverse("web:fleet-ahead"))
    spent = []
    for _ in range(3):
        began = time.process_time()
        part = viewer.get(reverse("web:fleet-ahead")).content.decode()
        spent.append(time.process_time() - began)
    print(f"/ahead of 1,000 nodes of 8 GPUs: {min(spent) * 1000:.0f} ms of CPU")
    assert "16,000" in part and "50% idle" in part
    assert min(spent) < 0.5


def _say(at: datetime, median: int, horizon_s: int = 3600) -> None:
    Forecast.objects.create(
        at=at, horizon_s=horizon_s, keep_alive_s=policy.current().keep_alive_s, known_models=40, levels=list(LEVELS),
        values=[median - 2, median - 1, median, median + 1, median + 2, median + 5], method="x", recorded_s=9e5,
    )  # fmt: skip


def _ahead(page: str) -> str:
    return page.split('id="k-models-ahead"')[1].split("</dd>")[0]
