"""The control plane's figures for Prometheus: who may read them, and what they say of the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from rest_framework.test import APIClient

from controlplane.fleet.models import Gpu
from controlplane.telemetry import exposition, latest
from controlplane.telemetry import valkey as telemetry_valkey
from tests import expositions
from tests.factories import GIB, make_partition, make_ready, make_user

pytestmark = pytest.mark.django_db
SCRAPER = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def live(valkey: Any, settings: Any) -> Iterator[None]:
    settings.REDIS_URL = valkey.url
    telemetry_valkey.reset()
    yield
    telemetry_valkey.reset()


def viewer() -> APIClient:
    client = APIClient()
    client.force_authenticate(make_user("viewer"))
    return client


def scraped(path: str = "/metrics") -> dict[str, dict[Labels, float]]:
    """What a viewer reads: by name and labels."""
    response = viewer().get(path, headers={"Accept": SCRAPER})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(response.content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_nobody_reads_metrics_without_a_login() -> None:
    response = APIClient().get("/metrics", headers={"Accept": SCRAPER})

    assert response.status_code == 401
    assert b"django_" not in response.content


def test_a_user_without_a_role_does_not_read_them() -> None:
    client = APIClient()
    client.force_authenticate(make_user(""))

    assert client.get("/metrics").status_code == 403


def test_a_viewer_reads_the_fleet_as_prometheus_asks(live: None) -> None:
    expositions.make_fleet()
    Gpu.objects.filter(node__name="n2").update(flag="Its matmul rate is below the bar.")
    found = scraped()
    served = (("deployment", "chat"), ("role", "decode"))
    nodes = {labels[0][1]: count for labels, count in found["forebay_nodes"].items() if count}
    gpus = {labels[1][1]: count for labels, count in found["forebay_gpus"].items()}

    assert "django_http_requests_before_middlewares_total" in found
    assert nodes == {"ready": 1.0, "silent": 1.0}
    assert gpus == {"assigned": 1.0, "idle": 2.0, "degraded": 0.0, "lost": 0.0}
    assert found["forebay_gpus_flagged"] == {(("kind", "simulated"),): 1.0}
    assert found["forebay_node_report_age_seconds"][("node", "n1"),] < 60
    assert found["forebay_node_report_age_seconds"][("node", "n2"),] == pytest.approx(3600, abs=60)
    assert found["forebay_replicas_wanted"][served] == found["forebay_replicas_confirmed"][served] == 1.0
    assert found["forebay_replicas_minimum"][served] == 2.0
    assert found["forebay_engine_requests_running"] == {served: 3.0}
    assert found["forebay_gpus_memory_used_bytes"] == {
        served: 8.0 * GIB,
        (("deployment", ""), ("role", "")): 8.0 * GIB,  # of the heard node's other GPU
    }
    assert found["forebay_alerts_firing"][("severity", "critical"),] == 1.0
    assert found["forebay_gateways"][()] == 1.0
    assert "forebay_gpu_power_watts" not in found


def test_what_the_pool_lends_is_none_of_the_deployments_replicas(live: None) -> None:
    own = expositions.make_fleet()
    slot = make_partition(own.node, deployment=own.deployment, role="aggregated", pool=True, overflow=True)
    make_ready(slot)
    found = scraped()

    for name in ("wanted", "ready", "confirmed"):
        assert {dict(labels)["role"] for labels in found[f"forebay_replicas_{name}"]} == {"decode"}
    assert found["forebay_pool_lent_slots"] == {(("deployment", "chat"),): 1.0}


def test_what_an_engine_does_not_tell_is_unknown_and_not_zero(live: None) -> None:
    partition = expositions.make_fleet()
    latest.keep(expositions.figures_of(partition, running=None, kv_usage=float("nan")))
    found = scraped()

    assert list(found["forebay_engines_unknown"].values()) == [1.0]
    assert "forebay_engine_requests_running" not in found
    assert "forebay_engine_kv_cache_usage_ratio" not in found
    assert list(found["forebay_engine_requests_waiting"].values()) == [1.0]


def test_single_gpus_are_told_only_where_they_are_asked_for(live: None) -> None:
    partition = expositions.make_fleet()
    found = scraped("/metrics?gpus=1")["forebay_gpu_power_watts"]

    assert {dict(labels)["node"] for labels in found} == {"n1"}  # of the silent node nothing is known now
    assert sorted(dict(labels)["deployment"] for labels in found) == ["", partition.deployment.name]
    for wrong in ("gpus=all", "gpu=1"):
        refusal = viewer().get(f"/metrics?{wrong}", headers={"Accept": SCRAPER})
        assert refusal.status_code == 400


def test_the_text_of_gauges_is_that_of_the_client_library() -> None:
    told = GaugeMetricFamily("forebay_x", 'Odd \\ and\nlong "help"', labels=["node", "deployment"])
    for value in (0.0, 1.0, 0.1, -2.5, 1e300, 123456789.0, 85899345920.0, float("nan"), float("inf"), 3):
        told.add_metric([f"n{value}", 'a"b\\c\nd, {é}'], value)
    plain = GaugeMetricFamily("forebay_y", "Plain", value=2)

    class Both(Collector):
        def collect(self) -> list[GaugeMetricFamily]:
            return [told, plain]

    registry = CollectorRegistry()
    registry.register(Both())
    assert exposition.text([told, plain]) == generate_latest(registry)
