"""Logs over REST. The node is the agent's own code; what lies between is real."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from rest_framework.test import APIClient

from controlplane.api import log_streams
from controlplane.fleet.models import Partition
from controlplane.telemetry import logs, process_log
from controlplane.telemetry import valkey as connections
from controlplane.telemetry.logs import Source
from controlplane.telemetry.process_log import Giver, ProcessLog
from tests.factories import make_node, make_partition, make_ready, make_user
from tests.telemetry.conftest import point_at
from tests.telemetry.sending import Node
from workers.contract import LogChunk

TEXT = "INFO loading\nWARNING slow disk\nERROR no peer\n  File x\nINFO ready\n"


@pytest.fixture
def live_valkey(valkey: Any, settings: Any) -> Iterator[Any]:
    point_at(settings, valkey.url)
    with valkey.client() as client:
        client.flushall()
        yield client
    connections.reset()
    log_streams._open.clear()


@pytest.fixture
def partition(live_valkey: Any, db: None) -> Partition:
    return make_ready(make_partition(make_node("node-1"), role="decode", name="p0"))


@pytest.fixture
def node(partition: Partition, tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, partition.node_id, partition.pk)
    with made.reporting():
        yield made


def address(partition: Partition) -> str:
    return f"/api/v1/partitions/{partition.pk}/logs"


def kept(partition: Partition, *chunks: tuple[int, str]) -> None:
    source = Source(partition.node_id, partition.pk)
    logs.want(source)
    for offset, text in chunks:
        logs.keep(source.owner, [LogChunk(partition=source.part, offset=offset, text=text)])


def test_lines_are_chosen_by_level_and_words(partition: Partition, viewer: APIClient) -> None:
    kept(partition, (0, TEXT))
    everything = viewer.get(address(partition)).json()
    assert (everything["text"], everything["levels"]) == (TEXT, "iweei")
    grave = viewer.get(address(partition), {"level": "error"}).json()
    assert (grave["text"], grave["levels"]) == ("ERROR no peer\n  File x\n", "ee")
    assert grave["next_offset"] == everything["next_offset"] == len(TEXT)
    assert viewer.get(address(partition), {"search": "SLOW (disk|"}).json()["text"] == ""
    assert viewer.get(address(partition), {"search": "Slow"}).json()["text"] == "WARNING slow disk\n"


def test_what_came_before_says_how_grave_the_rest_of_a_traceback_is(partition: Partition, viewer: APIClient) -> None:
    kept(partition, (0, "ERROR no peer\n"), (14, "  File x\n"))
    assert viewer.get(address(partition), {"offset": 14, "level": "error"}).json()["text"] == "  File x\n"


@pytest.mark.parametrize("wrong", ["level=loud", "follow=1&download=1", "follow=1&previous=1", "since_s=-1", "regex=x",
                                   f"search={'x' * 201}"])  # fmt: skip
def test_what_makes_no_sense_is_refused(partition: Partition, viewer: APIClient, wrong: str) -> None:
    found = viewer.get(f"{address(partition)}?{wrong}")
    assert found.status_code == 400 and found.json()["problems"]


def test_the_whole_log_is_a_file(node: Node, partition: Partition, viewer: APIClient) -> None:
    node.write(TEXT * 4000)
    found = viewer.get(address(partition), {"download": "true"})
    assert found["Content-Disposition"].startswith('attachment; filename="node-1-p0-')
    assert b"".join(found.streaming_content).decode() == TEXT * 4000
    chosen = viewer.get(address(partition), {"download": "true", "level": "error"})
    assert b"".join(chosen.streaming_content).decode() == "ERROR no peer\n  File x\n" * 4000
    assert log_streams._open == []


def test_the_engine_before_and_the_agent_have_their_logs(
    node: Node, partition: Partition, viewer: APIClient, operator: APIClient
) -> None:
    node.write("ERROR it died\nINFO again\n")
    node.record = msgspec.structs.replace(node.record, log_start=14)
    assert viewer.get(address(partition), {"previous": "true"}).json()["text"] == "ERROR it died\n"
    assert viewer.get(address(partition), {"since_s": "5"}).json()["text"] == "ERROR it died\nINFO again\n"
    node.own.path.write_text("INFO workers.agent: generation 4\n")
    found = operator.get(f"/api/v1/nodes/{partition.node_id}/logs", {"download": "true"})
    assert b"".join(found.streaming_content) == b"INFO workers.agent: generation 4\n"
    assert viewer.get(f"/api/v1/nodes/{partition.node_id}/logs").status_code == 403


def test_a_node_that_does_not_report_cannot_be_asked(live_valkey: Any, viewer: APIClient) -> None:
    partition = make_partition(make_node("gone", heard=False))
    found = viewer.get(address(partition), {"download": "true"})
    assert found.status_code == 503 and "does not report" in found.json()["detail"]
    assert log_streams._open == []


def test_one_user_cannot_hold_all_the_streams(partition: Partition, viewer: APIClient) -> None:
    held = [log_streams.slot(viewer.handler._force_user.pk) for _ in range(log_streams.EACH)]
    assert all(held)
    found = viewer.get(address(partition), {"follow": "true"})
    assert (found.status_code, found["Retry-After"]) == (429, "5")


def test_our_own_processes_give_their_logs(live_valkey: Any, operator: APIClient, viewer: APIClient) -> None:
    giver = Giver("gateway@host:8001", "gateway", ProcessLog())
    giver.beat(time.time())
    rows = operator.get("/api/v1/processes").json()["results"]
    assert rows == [{"name": giver.name, "kind": "gateway", "logs": f"/api/v1/processes/{giver.name}/logs"}]
    assert operator.get(rows[0]["logs"]).json()["state"] == "waiting"
    assert process_log.logs.wanted(giver.name)[0].partition == 0
    assert operator.get("/api/v1/processes/web@nowhere:1/logs").status_code == 404
    assert viewer.get(rows[0]["logs"]).status_code == 403


@pytest.mark.django_db(transaction=True)
async def test_a_log_is_followed_until_the_client_leaves(partition: Partition) -> None:
    await sync_to_async(kept)(partition, (0, "INFO one\nERROR two\n"))
    client = AsyncClient()
    await sync_to_async(lambda: client.force_login(make_user("viewer")))()
    response = await client.get(f"{address(partition)}?follow=true&level=warning")
    assert (response.status_code, response["Content-Type"]) == (200, "application/x-ndjson")
    stream = response.__aiter__()
    assert json.loads(await anext(stream)) == {"offset": 9, "level": "error", "text": "ERROR two"}
    await sync_to_async(kept)(partition, (19, "INFO three\nERROR four\n"))
    assert json.loads(await anext(stream)) == {"offset": 30, "level": "error", "text": "ERROR four"}
    assert len(log_streams._open) == 1
    await stream.aclose()
    for end in response._resource_closers:  # what Django closes when the client is gone
        end()
    assert log_streams._open == []
