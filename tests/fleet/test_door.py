"""Reports as they come in before Django: what says nothing new is answered from memory, and nothing else is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone
from prometheus_client import REGISTRY

from controlplane.api import agent
from controlplane.api import door as doors
from controlplane.api.agent import MAX_BODY
from controlplane.api.door import Door
from controlplane.audit.models import AuditEvent
from controlplane.domain.pacing import Pace
from controlplane.fleet import reports
from controlplane.fleet.heard import STALE_S, Touch, heard
from controlplane.fleet.models import Node
from tests.factories import make_gpu, make_node, token_of
from tests.fleet.reporting import device_of, report_of

pytestmark = pytest.mark.django_db


def look() -> None:
    """As the keeper's thread does each second."""
    reports.note_written(heard.write())
    heard.read()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    reports.forget()
    yield
    reports.forget()


@pytest.fixture
def node() -> Node:
    made = make_node("gpu-1")
    make_gpu(made)
    return made


@pytest.fixture
def door() -> Door:
    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a report went past the door")

    return Door(elsewhere)


def send(door: Door, body: bytes, token: str, *, piece: int = 0) -> tuple[int, dict[str, str], Any]:
    """As a server hands it on; in pieces of that size, or whole. Status, headers and the decoded answer."""
    size = piece or max(1, len(body))
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def take(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"x"), (b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": "POST", "path": doors.PATH, "headers": headers}
    async_to_sync(door)(scope, receive, take)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert int(answered["content-length"]) == len(sent[1]["body"])
    return sent[0]["status"], answered, json.loads(sent[1]["body"])


def say(door: Door, node: Node, *, piece: int = 0, **fields: Any) -> tuple[int, dict[str, str], Any]:
    return send(door, msgspec.json.encode(report_of(node, **fields)), token_of(node), piece=piece)


def settle(door: Door, node: Node) -> None:
    """It has its spec, and said so."""
    for _ in range(2):
        assert say(door, node)[0] == 200
        node.refresh_from_db()
    look()
    door.short = door.long = 0


def counted_from_memory() -> float:
    return REGISTRY.get_sample_value("forebay_reports_from_memory_total") or 0.0


def test_a_report_that_says_nothing_new_asks_the_database_nothing(
    door: Door, node: Node, django_assert_num_queries: Any
) -> None:
    settle(door, node)
    body, token, before = msgspec.json.encode(report_of(node)), token_of(node), counted_from_memory()
    with django_assert_num_queries(0):
        status, _, reply = send(door, body, token)
    assert (status, door.short, door.long) == (200, 1, 0)
    assert counted_from_memory() - before == 1
    assert abs(reply["at"] - time.time()) < 5


def test_that_it_was_heard_reaches_the_row_with_all_others(door: Door, node: Node) -> None:
    settle(door, node)
    reports._written[node.pk].at -= reports.HEARD_EVERY_S
    before = Node.objects.get(pk=node.pk)
    say(door, node)
    assert door.short == 1
    look()
    after = Node.objects.get(pk=node.pk)
    assert (after.last_seen > before.last_seen, after.last_seq > before.last_seq) == (True, True)
    say(door, node)
    assert door.short == 2


def test_news_takes_the_long_way_and_reaches_its_row_at_once(door: Door, node: Node) -> None:
    settle(door, node)
    assert say(door, node, engine_version="9.9")[0] == 200
    assert (door.short, door.long) == (0, 1)
    assert Node.objects.get(pk=node.pk).engine_version == "9.9"


def test_devices_that_are_written_another_way_are_no_news(door: Door, node: Node) -> None:
    settle(door, node)
    report = json.loads(msgspec.json.encode(report_of(node)))
    report["devices"] = [dict(reversed(device.items())) for device in report["devices"]]
    assert send(door, json.dumps(report).encode(), token_of(node))[0] == 200
    assert (door.short, door.long) == (1, 0)


def test_another_device_takes_the_long_way(door: Door, node: Node) -> None:
    settle(door, node)
    say(door, node)
    (gpu,) = node.gpus.all()
    say(door, node, devices=(device_of(gpu, name="Another kind"),))
    assert (door.short, door.long) == (1, 1)
    gpu.refresh_from_db()
    assert gpu.name == "Another kind"


def test_devices_that_cannot_be_read_are_told_so(door: Door, node: Node) -> None:
    settle(door, node)
    report = json.loads(msgspec.json.encode(report_of(node))) | {"devices": [{"uuid": 7}]}
    status, _, problem = send(door, json.dumps(report).encode(), token_of(node))
    assert (status, "devices" in problem["detail"], door.short) == (400, True, 0)


def test_a_revoked_node_is_told_so_from_the_next_look_on(door: Door, node: Node) -> None:
    settle(door, node)
    Node.objects.filter(pk=node.pk).update(revoked=True)
    look()
    status, _, problem = say(door, node)
    assert (status, problem["type"], door.short) == (410, "node-revoked", 0)


def test_a_new_spec_is_handed_out(door: Door, node: Node) -> None:
    settle(door, node)
    Node.objects.filter(pk=node.pk).update(generation=node.generation + 1)
    look()
    status, _, reply = say(door, node)
    assert (status, door.short, reply["spec"]["node"]) == (200, 0, node.pk)


def test_a_second_agent_with_this_identity_is_refused(door: Door, node: Node) -> None:
    settle(door, node)
    status, _, problem = say(door, node, instance="another-home")
    assert (status, problem["type"]) == (409, "identity-conflict")


def test_a_repeated_report_is_no_news_and_counts_as_none(door: Door, node: Node) -> None:
    settle(door, node)
    report = report_of(node)
    for _ in range(3):
        assert send(door, msgspec.json.encode(report), token_of(node))[0] == 200
    assert (door.short, door.long) == (1, 2)


def test_nobody_is_answered_from_what_is_too_old_to_go_by(
    door: Door, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(door, node)
    monkeypatch.setattr(heard, "_read_at", time.monotonic() - STALE_S - 1)
    say(door, node)
    assert (door.short, door.long) == (0, 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"node": -1}', b"\xff\xfe"])
def test_what_is_no_report_is_told_what_it_lacks(door: Door, node: Node, body: bytes) -> None:
    settle(door, node)
    status, headers, problem = send(door, body, token_of(node))
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["detail"]


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_whoever_has_no_token_learns_nothing(door: Door, node: Node, token: str) -> None:
    settle(door, node)
    assert send(door, msgspec.json.encode(report_of(node)), token)[0] == 401


def test_a_body_may_come_in_pieces_but_not_without_end(door: Door, node: Node) -> None:
    settle(door, node)
    assert say(door, node, piece=100)[0] == 200
    assert door.short == 1
    assert send(door, b" " * (MAX_BODY + 1), token_of(node), piece=65536)[0] == 413
    assert send(door, b" " * (MAX_BODY + 1), token_of(node))[0] == 413


def test_a_crowd_is_told_to_come_again_and_its_nodes_are_not_silent(door: Door, node: Node) -> None:
    settle(door, node)
    was = timezone.now() - timedelta(seconds=9)
    Node.objects.filter(pk=node.pk).update(last_seen=was)
    look()
    door.waiting = doors.MOST_WAITING
    status, headers, problem = say(door, node, engine_version="9.9")
    assert (status, headers["retry-after"], problem["type"]) == (503, "2", "overloaded")
    look()
    row = Node.objects.get(pk=node.pk)
    assert (row.last_seen > was, row.last_seq, row.engine_version) == (True, node.last_seq, node.engine_version)
    door.waiting = 0
    assert say(door, node, engine_version="9.9")[0] == 200
    assert Node.objects.get(pk=node.pk).engine_version == "9.9"


def test_a_report_that_waited_here_makes_no_node_silent_and_no_clock_wrong(node: Node) -> None:
    came_at = time.time() - 60
    Node.objects.filter(pk=node.pk).update(last_seen=timezone.now() - timedelta(seconds=61))
    body = msgspec.json.encode(report_of(node, at=came_at))
    assert agent.answer_report(body, f"Bearer {token_of(node)}", None, came_at).status_code == 200
    row = Node.objects.get(pk=node.pk)
    assert abs(row.clock_skew_s) < 1
    assert not AuditEvent.objects.filter(verb__in=["heard-again", "clock-skewed"]).exists()


def test_an_overloaded_server_asks_for_fewer_reports(door: Door, node: Node) -> None:
    settle(door, node)
    door.pace = Pace(step=1)
    assert say(door, node)[2]["period_s"] == 2.0
    assert "period_s" not in say(door, node, period_s=2.0)[2]


@pytest.mark.parametrize("newer", [{"last_seq": 2**50}, {"boot": "boot-2"}, {"instance": "another-home"}])
def test_a_row_that_somebody_newer_has_reached_stays(door: Door, node: Node, newer: dict[str, Any]) -> None:
    settle(door, node)
    was = Node.objects.get(pk=node.pk).last_seen
    Node.objects.filter(pk=node.pk).update(**newer)
    heard.touch(node.pk, Touch(node.instance, node.boot, node.last_seq + 1, time.time() + 1, 0.0))
    heard.write()
    row = Node.objects.get(pk=node.pk)
    assert row.last_seen == was
    assert all(getattr(row, name) == value for name, value in newer.items())
