"""A decode engine killed in the middle of a stream: the client gets the text it would have got undisturbed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.stack import LONG, Stack, eventually

TOKENS = 900
BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": f"killed: {LONG}"},
    "chat/completions": {"messages": [{"role": "user", "content": f"killed: {LONG}"}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_whose_decode_engine_is_killed_says_what_it_would_have_said(stack: Stack, path: str) -> None:
    stack.wait_serving()
    whole, _, _ = listen(stack, path)
    decode = stack.partition("decode")
    pid = stack.engine_pids()[decode["id"]]

    text, usage, reply = listen(stack, path, after=15, do=lambda: os.kill(pid, signal.SIGKILL))

    assert text == whole
    assert usage["completion_tokens"] == TOKENS
    record = eventually(lambda: find_record(stack, reply.headers["x-request-id"]), within_s=30, what="its record")
    assert (record["outcome"], record["continued"]) == ("ok", 1)
    assert record["continued_from"] == reply.headers["x-forebay-decode"] != record["decode"]
    assert record["completion_tokens"] == TOKENS
    eventually(lambda: is_back(stack, decode["id"], pid), within_s=240, what="the engine is back")


def listen(
    stack: Stack, path: str, *, after: int = -1, do: Callable[[], None] = lambda: None
) -> tuple[str, dict[str, int], httpx.Response]:
    """The joined text of a stream; `do` is done once `after` events have come."""
    body = {
        "model": stack.demo, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True}, **BODIES[path],
    }  # fmt: skip
    text, usage, ids, count = "", {}, set(), 0
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx.stream("POST", f"{stack.gateway}/v1/{path}", headers=headers, json=body, timeout=120) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            ids.add((event["id"], event["created"], event["model"], event["object"]))
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            count += 1
            if count == after:
                do()
    assert len(ids) == 1
    return text, usage, reply


def find_record(stack: Stack, request_id: str) -> dict[str, Any] | None:
    return next(iter(stack.rest("GET", f"/requests?request_id={request_id}")["results"]), None)


def is_back(stack: Stack, partition_id: int, pid: int) -> bool:
    there = next(partition for partition in stack.partitions() if partition["id"] == partition_id)
    return bool(there["confirmed"]) and stack.engine_pids().get(partition_id) not in {None, pid}
