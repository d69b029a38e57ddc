"""A simulated node reads its queue as its agent would: with a real Valkey, by the node's own user."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.workers.conftest import free_range
from tests.workers.control import NODE, Control, make_spec, until
from tests.workers.test_broker import QUEUE, admit, send, serve
from workers.app import TASK
from workers.contract import NodeSpec, Phase
from workers.ports import parse_range
from workers.simulated_fleet import queues
from workers.simulated_fleet.faults import parse
from workers.simulated_fleet.host import Curve
from workers.simulated_fleet.player import Fleet, Seat, Told, play
from workers.simulated_fleet.queues import BadMessage, read

SPEC = NodeSpec(node=NODE, generation=3)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


@contextmanager
def played(control: Control, broker_url: str) -> Iterator[tuple[Fleet, Told]]:
    """One node, whose reports the control plane hears, and whose queue is at that broker."""
    seat = Seat(node=NODE, name="n1", token="node-secret", instance="i", broker_url=broker_url, queue=QUEUE)
    fleet, told, over = Fleet([seat], gpus=4, curve=Curve("low", 1)), Told(), threading.Event()
    url = urlsplit(control.url)
    playing = play(fleet, [seat], host="127.0.0.1", port=url.port or 80, is_over=over.is_set, told=told)
    thread = threading.Thread(target=asyncio.run, args=(playing,))
    thread.start()
    try:
        until(lambda: control.reports, 10)
        yield fleet, told
    finally:
        over.set()
        thread.join(15)


def test_a_spec_comes_by_the_queue_and_is_told_before_the_period_is_over(control: Control) -> None:
    control.answer_specs, control.period_s = False, 60.0
    with serve() as server, server.client() as client:
        with played(control, f"{admit(client)}127.0.0.1:{server.port}/0") as (_, told):
            control.want(make_spec(1))
            send(f"redis://127.0.0.1:{server.port}/0", control.spec)
            until(lambda: control.last.generation == 1, 5, what="a report of the new generation")
            assert control.last.replicas[0].phase == Phase.STARTING
            assert told.nudged == 1
            send(f"redis://127.0.0.1:{server.port}/0", control.spec)  # again: it is held already
            until(lambda: client.llen(QUEUE) == 0, 5)
            send(f"redis://127.0.0.1:{server.port}/0", {"node": NODE, "generation": "new"})  # no spec, and no harm
            control.want()
            send(f"redis://127.0.0.1:{server.port}/0", control.spec)
            until(lambda: control.last.generation == 2, 5, what="a report of the next one")
            assert (told.nudged, told.lost, client.llen(QUEUE)) == (2, 0, 0)
        assert client.execute_command("ACL", "LOG") == [], "the player asks for more than a node's user may do"


def test_without_a_broker_the_answers_carry_the_specs_and_its_return_is_noticed(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "AGAIN_S", 0.2)
    port = parse_range(free_range(1)).start
    with played(control, f"redis://127.0.0.1:{port}/0") as (_, told):
        control.want(make_spec(1))
        until(lambda: control.last.generation == 1, 5)
        assert told.nudged == 0
        control.answer_specs = False
        with serve(port):
            control.want()
            send(f"redis://127.0.0.1:{port}/0", control.spec)
            until(lambda: control.last.generation == 2, 10)


def test_a_silent_node_is_not_reached_by_its_queue(control: Control) -> None:
    control.answer_specs = False
    with (
        serve() as server,
        server.client() as client,
        played(control, f"redis://127.0.0.1:{server.port}/0") as (
            fleet,
            told,
        ),
    ):
        fleet.put(frozenset({parse("silence n1")}))
        control.want(make_spec(1))
        send(f"redis://127.0.0.1:{server.port}/0", control.spec)
        until(lambda: client.llen(QUEUE) == 0, 5)
        time.sleep(0.5)  # it is off the queue before it is handed on
        fleet.put(frozenset())
        heard = len(control.reports)
        until(lambda: len(control.reports) > heard + 1, 10)
        assert (told.nudged, control.last.generation) == (0, 0)
        control.answer_specs = True
        until(lambda: control.last.generation == 1, 5)


def message(**changes: Any) -> bytes:
    body = json.dumps([[msgspec.to_builtins(SPEC)], {}, {"callbacks": None}]).encode()
    plain = {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "headers": {"task": TASK, "expires": (NOW + timedelta(seconds=30)).isoformat(), "id": "x"},
        "properties": {"body_encoding": "base64", "delivery_tag": "y"},
    }
    return json.dumps({**plain, **changes}).encode()


def test_a_message_is_a_spec_until_it_expires() -> None:
    assert read(message(), NOW.timestamp()) == SPEC
    assert read(message(), NOW.timestamp() + 31) is None


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{}",
        message(headers={"task": "os.system"}),
        message(body="?"),
        message(body=base64.b64encode(b"[[], {}, {}]").decode()),
        message(headers={"task": TASK, "expires": "soon"}),
    ],
)
def test_a_message_without_a_spec_is_none(bad: bytes) -> None:
    with pytest.raises(BadMessage):
        read(bad, NOW.timestamp())
