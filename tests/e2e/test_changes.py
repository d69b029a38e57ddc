"""A change of the fleet while clients stream: nobody notices."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from bench._streams import Streams, Tally
from tests.e2e.stack import Stack, eventually


def test_roles_are_swapped_by_one_change_and_back_while_clients_stream(stack: Stack) -> None:
    """One prefill and one decode engine: for a moment one of them serves alone. No process ends, no text differs."""
    stack.wait_serving()
    engines = stack.engine_pids()
    before = {row["id"]: row["role"] for row in stack.partitions()}

    tally, swapped = asyncio.run(_swap_under_load(stack))

    assert swapped == {pk: {"prefill": "decode", "decode": "prefill"}[role] for pk, role in before.items()}
    assert {row["id"]: row["role"] for row in stack.partitions()} == before
    assert stack.engine_pids() == engines
    assert tally.requests >= 20, "clients did stream meanwhile"
    assert (tally.failed, tally.wrong) == (0, 0), tally.why


async def _swap_under_load(stack: Stack) -> tuple[Tally, dict[int, str]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        streams = Streams(stack.gateway, stack.key, stack.demo, clients=4, count=8, pause_s=0.1)
        await streams.learn(session)
        streams.start(session)
        try:
            change = await asyncio.to_thread(_swap, stack)
            swapped = {row["id"]: row["role"] for row in await asyncio.to_thread(stack.partitions)}
            await asyncio.to_thread(_undo, stack, change)
            await streams.until(lambda tally: tally.requests >= 20, within_s=60)
        finally:
            await streams.stop()
    return streams.tally, swapped


def _swap(stack: Stack) -> int:
    other = {"prefill": "decode", "decode": "prefill"}
    moves = [
        {"partition": row["id"], "deployment": row["deployment"]["id"], "role": other[row["role"]]}
        for row in stack.partitions()
    ]
    seen = stack.rest("POST", "/changes?dry_run=true", json={"moves": moves})
    assert [move["action"] for move in seen["moves"]] == ["relabel", "relabel"]
    assert [warning["code"] for warning in seen["warnings"]] == ["role-gap"]
    body = {"moves": moves, "version": seen["version"], "reason": "swap under load"}
    return _done(stack, stack.rest("POST", "/changes", json=body)["id"])


def _undo(stack: Stack, change: int) -> None:
    seen = stack.rest("POST", f"/changes/{change}/undo?dry_run=true", json={})
    undo = stack.rest("POST", f"/changes/{change}/undo", json={"version": seen["version"], "reason": "back again"})
    _done(stack, undo["id"])


def _done(stack: Stack, change: int) -> int:
    def is_done() -> bool:
        row: dict[str, Any] = stack.rest("GET", f"/changes/{change}")
        assert row["state"] in ("running", "done"), row["message"]
        return row["state"] == "done"

    eventually(is_done, within_s=90, what=f"change {change} is done")
    return change
