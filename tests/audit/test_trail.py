"""The trail is append-only, found by what people remember, and leaves as a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, connections, transaction
from django.test import AsyncClient, Client

from controlplane.audit import export, search
from controlplane.audit.models import AuditEvent, NeverChanged
from controlplane.audit.services import Actor, record
from tests.factories import make_node, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def event(actor: Actor) -> AuditEvent:
    return record(actor, "cordon", make_node("host-1"), before={"a": 1}, after={"a": 2}, reason="fan is loud")


def change(event: AuditEvent) -> None:
    event.reason = "nothing"
    event.save()


@pytest.mark.parametrize(
    "attempt",
    [
        change,
        lambda event: event.delete(),
        lambda event: AuditEvent.objects.update(reason="nothing"),
        lambda event: AuditEvent.objects.filter(pk=event.pk).delete(),
        lambda event: AuditEvent.objects.bulk_update([event], ["reason"]),
    ],
    ids=["save", "delete", "update of many", "delete of many", "bulk update"],
)
def test_the_model_refuses_to_change_what_is_recorded(attempt: Callable[[AuditEvent], Any], event: AuditEvent) -> None:
    with pytest.raises(NeverChanged, match="never changed or deleted"), transaction.atomic():
        attempt(event)
    assert AuditEvent.objects.get().reason == "fan is loud"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_auditevent SET reason = ''",
        "UPDATE audit_auditevent SET actor_id = NULL",
        "DELETE FROM audit_auditevent",
    ],
)
def test_so_does_the_database(statement: str, event: AuditEvent) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEvent.objects.get().reason == "fan is loud"


def found(text: str) -> set[str]:
    return set(search.containing(AuditEvent.objects.all(), text).values_list("subject_name", flat=True))


def test_each_word_is_looked_for_everywhere(actor: Actor) -> None:
    record(actor, "cordon", make_node("host-1"), reason="fan is loud")
    record(Actor.agent("host-2"), "engine-exited", make_node("host-2"), detail="Killed by the kernel")
    assert found("FAN") == found("olga fan") == found("loud cordon") == found("test-request") == {"host-1"}
    assert found("killed host-2") == {"host-2"}
    assert found("olga killed") == set()
    assert found("  ") == {"host-1", "host-2"}
    assert found("%") == found("_") == set(), "no word is a pattern"


def read(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    assert response.streaming
    assert "attachment" in response["Content-Disposition"]
    return b"".join(response.streaming_content).decode()


@pytest.fixture
def reader(db: None) -> Client:
    client = Client()
    client.force_login(make_user("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    return client


PLACES = ["/api/v1/events/export?format={}", "/activity/export.{}?"]


@pytest.mark.parametrize("place", PLACES)
def test_json_lines_have_every_event_whole(place: str, reader: Client, actor: Actor, event: AuditEvent) -> None:
    lines = [json.loads(line) for line in read(reader, place.format("jsonl")).splitlines()]
    assert lines[-1] == {
        "id": event.pk, "at": event.at.isoformat(), "actor": "olga", "source": "web", "verb": "cordon",
        "subject_type": "node", "subject_id": event.subject_id, "subject_name": "host-1", "reason": "fan is loud",
        "before": {"a": 1}, "after": {"a": 2}, "detail": "", "request_id": "test-request", "address": "127.0.0.1",
    }  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_cell_is_never_a_formula(place: str, reader: Client) -> None:
    for reason in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'fine, "quoted"\nand broken'):
        record(Actor(name="=cmd()", source="web"), "cordon", make_node(), reason=reason, after={"x": "=1"})
    rows = list(csv.DictReader(io.StringIO(read(reader, place.format("csv")), newline="")))
    assert [row["reason"] for row in rows] == [
        "fine, \"quoted\"\nand broken", "'\r=1", "'\t=1", "'@SUM(A1)", "'-1", "'+1", "'=1+1",
    ]  # fmt: skip
    assert {row["actor"] for row in rows} == {"'=cmd()"}
    assert rows[0]["after"] == '{"x": "=1"}'
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


def test_the_export_is_what_the_filter_chose(reader: Client, event: AuditEvent) -> None:
    record(Actor.agent("host-2"), "engine-exited", make_node("host-2"))
    for query in ("q=loud", "verb=cordon", "source=web", "actor=OLGA", "request_id=test-request"):
        [line] = read(reader, f"/api/v1/events/export?format=jsonl&{query}").splitlines()
        assert json.loads(line)["id"] == event.pk, query
    for query in ("q=loud", "verb=cordon", "source=web", "who=OLGA", "about=node&source=web"):
        [line] = read(reader, f"/activity/export.jsonl?{query}").splitlines()
        assert json.loads(line)["id"] == event.pk, query
    assert read(reader, "/api/v1/events/export?since=2999-01-01T00:00:00Z").splitlines() == [",".join(export.COLUMNS)]


@pytest.mark.parametrize("query", ["format=xlsx", "source=mars", "since=soon", "cursor=x", "whom=olga"])
def test_an_export_that_makes_no_sense_is_refused_not_widened(query: str, reader: Client) -> None:
    response = reader.get(f"/api/v1/events/export?{query}")
    assert response.status_code == 400
    assert response.json()["problems"]
    assert reader.get("/activity/export.csv?since=soon").status_code == 404


def test_a_long_trail_is_read_in_batches_and_misses_nothing(reader: Client, django_assert_num_queries: Any) -> None:
    node = make_node()
    AuditEvent.objects.bulk_create(
        AuditEvent(actor_name="olga", source="web", verb="cordon", subject_type="node", subject_id=node.pk)
        for _ in range(2 * export.BATCH + 1)
    )
    response = reader.get("/api/v1/events/export?format=jsonl")
    with django_assert_num_queries(4):
        lines = b"".join(response.streaming_content).decode().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == list(AuditEvent.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
async def test_under_asgi_it_is_streamed_as_well() -> None:
    client = AsyncClient()
    user = await sync_to_async(make_user)("viewer")
    await client.aforce_login(user, backend="django.contrib.auth.backends.ModelBackend")
    await sync_to_async(record)(Actor(name="olga", source="web"), "change", user)
    response = await client.get("/activity/export.jsonl")
    [line] = b"".join([part async for part in response.streaming_content]).decode().splitlines()
    assert json.loads(line)["actor"] == "olga"
    await sync_to_async(connections.close_all)()  # else its thread keeps a session, and PostgreSQL the database
