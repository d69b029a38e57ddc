"""Logs pass through a real Valkey; `logs.keep` is where a node's agent leaves what it sends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.fleet.models import Partition
from controlplane.telemetry import logs, valkey
from controlplane.telemetry.process_log import Giver, ProcessLog
from tests.cli.conftest import Terminal, Wire
from tests.conftest import Broker
from tests.factories import make_node, make_partition, make_token, make_user
from tests.telemetry.sending import Node
from workers.contract import LogChunk

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def p0(broker: Broker, db: None) -> Any:
    valkey.reset()
    yield make_partition(make_node("node-1"), role="decode", name="p0")
    valkey.reset()


def send(partition: Partition, offset: int, text: str) -> None:
    logs.keep(partition.node_id, [LogChunk(partition=partition.pk, offset=offset, text=text)])


def agent_sends(wire: Wire, partition: Partition, *chunks: tuple[int, str]) -> None:
    """One chunk with each report, from the first look on."""
    left = list(chunks)
    looks: list[str] = []

    def look(path: str) -> None:
        if path.endswith("/logs"):
            looks.append(path)
            if len(looks) > 1 and left:
                send(partition, *left.pop(0))

    wire.on_look = look


def test_logs_shows_the_end_that_the_agent_sends(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (100, "loading\n"), (108, "ready\n"))
    assert viewer.ok("logs", "node-1/p0") == "loading\nready\n"


def test_what_was_fetched_before_is_completed(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    logs.want(logs.Source(p0.node_id, p0.pk))
    send(p0, 0, "old\n")
    looks: list[str] = []

    def look(path: str) -> None:
        looks.append(path)
        if len([path for path in looks if path.endswith("/logs")]) == 3:
            send(p0, 4, "new\n")

    wire.on_look = look
    assert viewer.ok("logs", "node-1/p0") == "old\nnew\n"


def test_logs_can_be_cut_to_the_last_lines(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (0, "one\ntwo\nthree\n"))
    assert viewer.ok("logs", "node-1/p0", "-n", "2") == "two\nthree\n"


def test_logs_for_programs(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (0, "\x1b[32mone\x1b[0m\n"))
    shown = viewer.json("logs", "node-1/p0")
    assert set(shown) == {"partition", "state", "at", "next_offset", "text"}
    assert (shown["partition"], shown["state"], shown["text"]) == ("node-1/p0", "live", "\x1b[32mone\x1b[0m\n")


def test_colours_and_commands_in_a_log_do_not_reach_the_terminal(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (0, "\x1b[32mINFO\x1b[0m\tok\x1b]0;owned\x07\n"))
    assert viewer.ok("logs", "node-1/p0") == "INFO\tok\n"


def test_a_log_that_never_comes_is_6(viewer: Terminal, p0: Partition) -> None:
    assert "No log of node-1/p0 came." in viewer.fails(6, "logs", "node-1/p0")


def test_the_log_of_a_silent_node_is_6(viewer: Terminal, broker: Broker) -> None:
    valkey.reset()
    make_partition(make_node("node-9", heard=False), role="decode", name="p0")
    assert "node-9 does not report" in viewer.fails(6, "logs", "node-9/p0")


def test_without_the_broker_it_is_5_with_the_servers_words(viewer: Terminal) -> None:
    valkey.reset()
    make_partition(make_node("node-1"), role="decode", name="p0")
    assert "Logs pass through the broker" in viewer.fails(5, "logs", "node-1/p0")


def test_following_shows_what_comes_and_says_what_is_missing(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (0, "one\n"), (4, "two\n"), (500, "much later\n"))
    ended = wire.on_look

    def look(path: str) -> None:
        if len([request for request in wire.seen if request.url.path.endswith("/logs")]) == 6:
            raise KeyboardInterrupt
        ended(path)

    wire.on_look = look
    result = viewer.run("logs", "node-1/p0", "-f")
    assert result.exit_code == 130
    assert result.stdout == "one\ntwo\nmuch later\n"
    assert result.stderr.count("some lines are missing") == 1


def test_lines_are_chosen_by_a_pattern_and_by_level(viewer: Terminal, wire: Wire, p0: Partition) -> None:
    agent_sends(wire, p0, (0, "INFO step 1\nERROR step 2\n  in step 2\nINFO Step 30\n"))
    assert viewer.ok("logs", "node-1/p0", "--level", "error") == "ERROR step 2\n  in step 2\n"
    assert viewer.ok("logs", "node-1/p0", "--grep", r"step \d\d") == "INFO Step 30\n"
    assert viewer.ok("logs", "node-1/p0", "--grep", r"[S]tep") == "INFO Step 30\n"
    assert "is no regular expression" in viewer.run("logs", "node-1/p0", "--grep", "(").stderr


def test_the_engine_before_the_last_minutes_and_the_agent(operator: Terminal, p0: Partition, tmp_path: Path) -> None:
    node = Node(tmp_path, p0.node_id, p0.pk)
    node.write("ERROR it died\nINFO again\n")
    node.own.path.write_text("INFO workers.agent: generation 4\n")
    node.record = msgspec.structs.replace(node.record, log_start=14)
    with node.reporting():
        assert operator.ok("logs", "node-1/p0", "--previous") == "ERROR it died\n"
        assert operator.ok("logs", "node-1/p0", "--since", "5m") == "ERROR it died\nINFO again\n"
        assert operator.ok("logs", "node-1/p0", "--since", "5m", "-n", "1") == "INFO again\n"
        assert operator.ok("logs", "--node", "node-1") == "INFO workers.agent: generation 4\n"
    assert "does not go on" in operator.fails(2, "logs", "node-1/p0", "--previous", "-f")


def test_an_agents_log_is_not_for_viewers(viewer: Terminal, p0: Partition) -> None:
    assert "needs the role operator" in viewer.fails(3, "logs", "--node", "node-1")


def test_the_gateways_log_is_found_by_itself(operator: Terminal, wire: Wire, p0: Partition) -> None:
    assert "No gateway runs." in operator.fails(2, "logs", "--gateway")
    kept = ProcessLog()
    giver = Giver("gateway@host:8001", "gateway", kept)
    giver.beat(time.time())
    kept.handle(logging.makeLogRecord({"msg": "the gateway listens", "levelname": "INFO", "name": "gw"}))
    wire.on_look = lambda path: giver.answer_once()
    assert "the gateway listens" in operator.ok("logs", "--gateway")
    assert operator.json("logs", "--process", giver.name)["process"] == giver.name
    assert giver.name in operator.fails(2, "logs", "--process", "web@nowhere:1")
    assert "Say whose log" in operator.fails(2, "logs", "node-1/p0", "--gateway")


@pytest.mark.django_db(transaction=True)
def test_a_process_follows_a_server_until_ctrl_c(live_server: Any, broker: Broker, tmp_path: Path) -> None:
    """The command as people start it, over a real socket, to the end with a signal."""
    valkey.reset()
    partition = make_partition(make_node("node-1"), role="decode", name="p0")
    token = make_token(make_user("viewer"))
    logs.want(logs.Source(partition.node_id, partition.pk))
    send(partition, 0, "first\n")
    told = {"FOREBAY_URL": live_server.url, "FOREBAY_TOKEN": token, "XDG_CONFIG_HOME": str(tmp_path)}
    program = [sys.executable, "-m", "controlplane.cli", "logs", "node-1/p0", "-f", "--json"]
    environment = {**os.environ, **told, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "first\n"
        send(partition, 6, "second\n")
        assert json.loads(process.stdout.readline())["text"] == "second\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        said = process.stderr.read()
    assert "Traceback" not in said and token not in said
    valkey.reset()
