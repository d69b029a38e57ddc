"""What breaks is mended, and what serves goes on serving meanwhile. Each by the real thing, killed for real."""

from __future__ import annotations

import os
import signal
import time

import psutil

from tests.e2e.stack import Stack, eventually


def test_a_killed_agent_leaves_its_engines_serving_and_adopts_them_again(stack: Stack) -> None:
    engines = stack.engine_pids()
    assert len(engines) == 2
    restarts = [partition["restarts"] for partition in stack.partitions()]
    agent = stack.part("workers run")

    agent.kill()

    assert stack.complete("served while the agent is gone", 4).status_code == 200
    eventually(lambda: stack.part("workers run").pid != agent.pid, within_s=30, what="a new agent")
    seen = time.time()
    eventually(lambda: last_seen_after(stack, seen), within_s=30, what="a report of the new agent")
    assert stack.engine_pids() == engines
    assert all(partition["confirmed"] for partition in stack.partitions())
    assert [partition["restarts"] for partition in stack.partitions()] == restarts


def test_a_killed_engine_is_started_again_and_the_live_view_shows_it(stack: Stack) -> None:
    decode = stack.partition("decode")
    before = stack.engine_pids()

    os.kill(before[decode["id"]], signal.SIGKILL)

    phases = set()

    def is_back() -> bool:
        live = live_partition(stack, decode["id"])
        phases.add(live["status"])
        return live["confirmed"] and stack.engine_pids().get(decode["id"]) not in {None, before[decode["id"]]}

    eventually(is_back, within_s=240, what="the engine is back")
    assert phases & {"starting", "pending"}, f"seen on the live view: {phases}"
    assert stack.engine_pids()[stack.partition("prefill")["id"]] == before[stack.partition("prefill")["id"]]
    events = stack.rest("GET", f"/events?source=agent&subject_type=partition&subject_id={decode['id']}")["results"]
    assert events, "people can read afterwards what happened"
    stack.wait_serving()


def test_without_the_broker_an_assignment_converges_by_the_reply_to_the_report(stack: Stack) -> None:
    """Roles are swapped while Valkey is stopped: only the reply to a report can carry the new spec."""
    engines = stack.engine_pids()
    prefill, decode = stack.partition("prefill"), stack.partition("decode")
    valkey = stack.part("valkey-server")
    valkey.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        swap(stack, prefill, decode)
        eventually(lambda: roles_confirmed(stack), within_s=60, what="both roles confirmed without the broker")
        took = time.monotonic() - began
    finally:
        valkey.send_signal(signal.SIGCONT)
    assert {p["id"]: p["role"] for p in stack.partitions()} == {prefill["id"]: "decode", decode["id"]: "prefill"}
    assert stack.engine_pids() == engines, "a flip between equal engines restarts nothing"
    assert took < 30
    stack.wait_serving()


def last_seen_after(stack: Stack, moment: float) -> bool:
    from datetime import datetime

    node = stack.rest("GET", "/nodes")["results"][0]
    return bool(node["last_seen"]) and datetime.fromisoformat(node["last_seen"]).timestamp() > moment


def live_partition(stack: Stack, partition_id: int) -> dict:
    nodes = stack.rest("GET", "/live")["nodes"]
    return next(p for node in nodes for p in node["partitions"] if p["id"] == partition_id)


def swap(stack: Stack, *partitions: dict) -> None:
    for partition in partitions:
        body = {
            "deployment": partition["deployment"]["id"],
            "role": "decode" if partition["role"] == "prefill" else "prefill",
            "reason": "swap without a broker",
            "force": True,
        }
        stack.rest("POST", f"/partitions/{partition['id']}/assign", json=body)


def roles_confirmed(stack: Stack) -> bool:
    return all(partition["confirmed"] for partition in stack.partitions())


def test_a_part_that_dies_comes_back(stack: Stack) -> None:
    gateway = stack.part("manage.py gateway")
    gateway.kill()
    psutil.wait_procs([gateway], timeout=10)
    stack.wait_serving(60)
    assert "gateway ended (killed by SIGKILL)" in stack.said.read_text()
