"""Requests, demand and events over REST: what only grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.gateway.models import DemandMinute
from tests.api.conftest import World, make_request, problem_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def found(client: APIClient, address: str, column: str, **query: object) -> list:
    response = client.get(f"/api/v1/{address}?{urlencode(query)}")
    assert response.status_code == 200, response.content
    return [row[column] for row in response.json()["results"]]


@pytest.fixture
def requests(db: None) -> None:
    for number in range(5):
        make_request(
            request_id=f"r{number}",
            at=NOON + timedelta(minutes=number),
            deployment="chat" if number < 3 else "code",
            outcome="error" if number == 2 else "ok",
            status=503 if number == 2 else 200,
            total_ms=100.0 * number,
        )


def test_requests_are_found_by_deployment_outcome_and_time(viewer: APIClient, requests: None) -> None:
    assert found(viewer, "requests", "request_id") == ["r4", "r3", "r2", "r1", "r0"]
    assert found(viewer, "requests", "request_id", deployment="code") == ["r4", "r3"]
    assert found(viewer, "requests", "request_id", outcome="error") == ["r2"]
    assert found(viewer, "requests", "request_id", status=503) == ["r2"]
    assert found(viewer, "requests", "request_id", min_total_ms=300) == ["r4", "r3"]
    since, until = (NOON + timedelta(minutes=1)).isoformat(), (NOON + timedelta(minutes=3)).isoformat()
    assert found(viewer, "requests", "request_id", since=since, until=until) == ["r2", "r1"], "until is not included"


@pytest.mark.parametrize(
    "query",
    ["outcome=fine", "since=yesterday", "status=all", "min_total_ms=slow", "page=2", "ordering=total_ms", "x=1"],
)
def test_a_question_about_requests_that_makes_no_sense_is_refused(query: str, viewer: APIClient) -> None:
    problem_of(viewer.get(f"/api/v1/requests?{query}"), 400)


@pytest.mark.parametrize("value", ["9" * 30, "-" + "9" * 30, "1e308", "NaN", "Infinity"])
@pytest.mark.parametrize("name", ["status", "min_total_ms", "api_key"])
def test_a_number_beyond_all_bounds_does_no_harm(name: str, value: str, viewer: APIClient, requests: None) -> None:
    assert viewer.get(f"/api/v1/requests?{name}={value}").status_code in {200, 400}


def test_requests_that_arrive_meanwhile_shift_no_page(viewer: APIClient, requests: None) -> None:
    first = viewer.get("/api/v1/requests?page_size=2").json()
    make_request(request_id="late")
    second = viewer.get(first["next"]).json()
    third = viewer.get(second["next"]).json()
    seen = [row["request_id"] for page in (first, second, third) for row in page["results"]]
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    assert third["next"] is None


def test_a_broken_cursor_is_refused(viewer: APIClient, requests: None) -> None:
    problem_of(viewer.get("/api/v1/requests?cursor=%00%ff"), 404)


def test_a_request_names_its_key_and_not_more_of_it(viewer: APIClient, world: World) -> None:
    body = viewer.get(f"/api/v1/requests/{world.request.pk}").json()
    assert (body["api_key"], body["prompt_tokens"], body["ttft_ms"]) == ("billing", 12, None)


def test_a_streamed_request_tells_how_long_each_step_took(viewer: APIClient, world: World) -> None:
    streamed = make_request(prefill_ms=20.0, transfer_ms=30.0, ttft_ms=50.0, total_ms=170.0)
    body = viewer.get(f"/api/v1/requests/{streamed.pk}").json()
    assert (body["prefill_ms"], body["transfer_ms"], body["decode_ms"]) == (20.0, 30.0, 120.0)
    assert viewer.get(f"/api/v1/requests/{world.request.pk}").json()["decode_ms"] is None


def test_demand_is_told_by_minute(viewer: APIClient) -> None:
    for number in range(3):
        for deployment in ("chat", "code"):
            DemandMinute.objects.create(
                deployment=deployment, minute=NOON + timedelta(minutes=number), arrivals=number, prompt_tokens=7
            )
    assert found(viewer, "demand", "arrivals", deployment="chat") == [2, 1, 0]
    since = (NOON + timedelta(minutes=1)).isoformat()
    assert found(viewer, "demand", "deployment", since=since) == ["chat", "code", "chat", "code"]
    first = viewer.get("/api/v1/demand?page_size=4").json()
    rest = viewer.get(first["next"]).json()
    assert len(first["results"]) + len(rest["results"]) == 6


def test_events_are_found_by_who_what_and_where(viewer: APIClient, world: World, actor: Actor) -> None:
    services.cordon(world.node.pk, actor=actor, reason="fan")
    [reason] = found(viewer, "events", "reason", verb="cordon")
    assert reason == "fan"
    query = {"subject_type": "node", "subject_id": world.node.pk, "actor": actor.name, "source": "web"}
    assert found(viewer, "events", "verb", **query) == ["cordon"]
    problem_of(viewer.get("/api/v1/events?source=gossip"), 400)
    event = AuditEvent.objects.latest("id")
    body = viewer.get(f"/api/v1/events/{event.pk}").json()
    assert (body["actor"], body["after"]["schedulable"]) == (actor.name, False)


def test_events_are_never_written_over_rest(admin: APIClient, world: World) -> None:
    address = f"/api/v1/events/{world.event.pk}"
    for call in (admin.put, admin.patch, admin.delete):
        assert call(address).status_code in {403, 405}
    assert AuditEvent.objects.filter(pk=world.event.pk).exists()


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2026-01-31T12:00:00Z", 200),
        ("0726-04-03T06:49:25.1-16:51", 200),  # an offset that PostgreSQL would not take
        ("0001-01-01T00:00:00+15:00", 400),  # before the first year, in UTC
        ("yesterday", 400),
    ],
)
def test_any_moment_that_can_be_told_in_utc_is_one(viewer: APIClient, moment: str, status: int) -> None:
    assert viewer.get("/api/v1/events", {"since": moment}).status_code == status
