"""A pair of real engines becomes one that does both phases by a plan of the planner, and a pair again by its undo,
while clients stream: no request fails and no text differs.

Two things are not as in life: the laws by which the kinds are compared are imported, and the two hours for which the
one has to have been cheaper are written into the planner's memory."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from bench._streams import Streams, Tally
from tests.e2e.stack import LONG, Stack, eventually
from tests.planning import profile_tables

pytestmark = pytest.mark.skipif(bool(os.environ.get("FOREBAY_VLLM")), reason="other engines were asked for")
PAIR, ONE = ["decode", "prefill"], ["aggregated"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("switching") / "home")
    one.environ |= {"FOREBAY_SCALING_EVERY_S": "3", "FOREBAY_QUALIFY": "never", "FOREBAY_DEVICES": "cpu"}
    try:
        one.up()
        furnish(one)
        yield one
    finally:
        one.clean_up()


def furnish(stack: Stack) -> None:
    """Objectives that either kind keeps, and laws by which one engine does what the pair does."""
    stack.wait_serving()
    node = stack.rest("GET", "/nodes")["results"][0]["id"]
    gpu = stack.rest("GET", f"/nodes/{node}")["gpus"][0]["name"]
    deployment = stack.rest("GET", "/deployments?name=tiny")["results"][0]
    table = profile_tables.splitwise(deployment["model"]["name"], "law").replace(",4\n", ",1\n")
    stack.rest("POST", "/profiles", json={"table": table, "gpus": {"law": gpu}})
    wishes = {"slo_ttft_ms": 60_000, "slo_itl_ms": 10_000}
    stack.rest("PATCH", f"/deployments/{deployment['id']}", json=wishes)


def test_a_plan_that_switches_is_applied_and_taken_back_under_steady_requests(stack: Stack) -> None:
    assert roles(stack) == PAIR
    tally, told = asyncio.run(under_load(stack))
    assert all("another kind of engines: Aggregated engines would do with 0.50 times the GPUs" in why for why in told)
    assert (tally.failed, tally.wrong) == (0, 0), tally.why
    assert tally.requests >= 60
    assert stack.complete(LONG).headers["x-forebay-path"] == "two_step"
    [plan] = stack.rest("GET", "/scaling/plans")["results"]
    assert plan["state"] == "applied" and not plan["automatic"], "what was taken back is not proposed again"
    print(f"{tally.requests} requests, the slowest took {tally.slowest_s:.1f} s")


async def under_load(stack: Stack) -> tuple[Tally, list[str]]:
    """And why the moves of the plan are made."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        streams = Streams(stack.gateway, stack.key, stack.demo, clients=2, count=8, pause_s=0.5)
        await streams.learn(session)
        streams.start(session)
        try:
            plan = await asyncio.to_thread(proposed, stack)
            before = streams.tally.copy()
            reason = {"reason": "one engine will do"}
            applied = await asyncio.to_thread(stack.rest, "POST", f"/scaling/plans/{plan['id']}/apply", json=reason)
            await asyncio.to_thread(done, stack, applied["change"])
            assert await asyncio.to_thread(roles, stack) == ONE
            await streams.until(lambda tally: tally.since(before)[0] >= 20, within_s=60)
            undone = await asyncio.to_thread(undo, stack, applied["change"])
            await asyncio.to_thread(done, stack, undone)
            assert await asyncio.to_thread(roles, stack) == PAIR
            before = streams.tally.copy()
            await streams.until(lambda tally: tally.since(before)[0] >= 20, within_s=60)
        finally:
            await streams.stop()
    return streams.tally, [move["why"] for move in plan["moves"]]


def proposed(stack: Stack) -> dict[str, Any]:
    eventually(lambda: any(lane["other_ratio"] for lane in lanes(stack)), within_s=240, what="the kinds are compared")
    assert {lane["other_ratio"] for lane in lanes(stack)} == {0.5}
    assert stack.rest("GET", "/scaling/plans?state=open")["results"] == []
    with sqlite3.connect(stack.home / "db.sqlite3", timeout=30) as database:
        since = datetime.now(UTC) - timedelta(hours=2, minutes=1)
        database.execute("UPDATE scaling_lanelook SET other_since = ?", (since.strftime("%Y-%m-%d %H:%M:%S"),))
    plans = eventually(
        lambda: stack.rest("GET", "/scaling/plans?state=open")["results"], within_s=60, what="a plan to switch"
    )
    return dict(plans[0])


def lanes(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.rest("GET", "/scaling")["lanes"])


def undo(stack: Stack, change: int) -> int:
    seen = stack.rest("POST", f"/changes/{change}/undo?dry_run=true", json={})
    body = {"version": seen["version"], "reason": "a pair again"}
    return int(stack.rest("POST", f"/changes/{change}/undo", json=body)["id"])


def done(stack: Stack, change: int) -> None:
    def is_done() -> bool:
        row = stack.rest("GET", f"/changes/{change}")
        assert row["state"] in ("running", "done"), row["message"]
        return bool(row["state"] == "done")

    eventually(is_done, within_s=240, what=f"change {change} is done")


def roles(stack: Stack) -> list[str]:
    return sorted(row["role"] for row in stack.partitions() if row["deployment"])
