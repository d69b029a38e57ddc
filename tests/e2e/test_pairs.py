"""A pooled model is woken as a pair, leaves as one and is given back as one, through the whole stack. The engines are
stand-ins, but for one test with real ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench import _standins
from tests.e2e.stack import LONG, Stack, eventually, make_tiny_model
from tests.e2e.test_pool import known, pool_id, settled

SLOTS = 3
HALVES = ["decode", "prefill"]


def furnish(stack: Stack, slots: int, *shapes: str) -> None:
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")[0]["id"]
    stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(slots)]})
    for row in stack.partitions():
        stack.rest("PATCH", f"/partitions/{row['id']}", json={"pool": True})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    for number, shape in enumerate(shapes):
        body = {"name": f"m{number}", "model": model, "mode": "pooled", "pool_shape": shape}
        stack.rest("POST", "/deployments", json=body)
    eventually(lambda: known(stack) == len(shapes), within_s=30, what="the gateway knows them")


def send(stack: Stack, name: str, prompt: str = LONG) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.key}"}
    body = {"model": name, "prompt": prompt, "max_tokens": 3}
    return httpx.post(f"{stack.gateway}/v1/completions", headers=headers, json=body, timeout=180)


def at_once(stack: Stack, name: str, count: int) -> Counter[tuple[int, str]]:
    """How many were answered with which status, on which path."""
    with ThreadPoolExecutor(count) as clients:
        answers = list(clients.map(lambda _: send(stack, name), range(count)))
    return Counter((answer.status_code, answer.headers.get("x-forebay-path", answer.text)) for answer in answers)


def held_by(stack: Stack, name: str) -> dict[str, dict[str, Any]]:
    rows = stack.partitions()
    return {row["role"]: row for row in rows if row["deployment"] and row["deployment"]["name"] == name}


def activations(stack: Stack, name: str) -> list[dict[str, Any]]:
    return list(stack.rest("GET", f"/activations?deployment={pool_id(stack, name)}")["results"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("pairs")
    made = Stack(home / "home", demo="none", slots=SLOTS)
    _standins.settle(made, "tiny", home)
    made.environ |= {
        "FOREBAY_POOL_MIN_RESIDENCE_S": "0", "FOREBAY_POOL_FREE": "0", "FOREBAY_QUALIFY": "never",
        "FOREBAY_KV_LEASE_S": "6", "FOREBAY_KV_DEADLINE_S": "3",  # prefill engines that leave are kept for so long
    }  # fmt: skip
    try:
        made.up()
        furnish(made, SLOTS, "pair", "pair", "aggregated")
        yield made
    finally:
        made.clean_up()


def test_requests_wait_for_both_engines_and_all_take_both_steps(stack: Stack) -> None:
    assert at_once(stack, "m0", 20) == {(200, "two_step"): 20}
    held = held_by(stack, "m0")
    assert sorted(held) == HALVES
    eventually(lambda: activations(stack, "m0")[0]["state"] == "ready", within_s=30, what="its activation is over")
    [activation] = activations(stack, "m0")
    assert (activation["shape"], activation["partition"]["id"], activation["partner"]["id"]) == (
        "pair", held["prefill"]["id"], held["decode"]["id"],
    )  # fmt: skip
    slots = {slot["partition"]["id"]: slot for slot in stack.rest("GET", "/pool")["slots"]}
    assert slots[held["decode"]["id"]]["pair_with"] == [f"{held['prefill']['node']['name']}/{held['prefill']['name']}"]


def test_one_pair_leaves_for_another_and_both_are_whole(stack: Stack) -> None:
    assert at_once(stack, "m1", 5) == {(200, "two_step"): 5}
    assert (sorted(held_by(stack, "m1")), held_by(stack, "m0")) == (HALVES, {})
    with ThreadPoolExecutor(2) as clients:  # three slots, and both want two
        both = list(clients.map(lambda name: send(stack, name), ("m0", "m1")))
    assert [answer.status_code for answer in both] == [200, 200]
    eventually(lambda: settled(stack), within_s=60, what="as many engines as slots that are taken")
    assert {len(held_by(stack, name)) for name in ("m0", "m1")} <= {0, 2}


def test_a_model_of_one_slot_takes_the_third_or_the_place_of_a_whole_pair(stack: Stack) -> None:
    assert at_once(stack, "m2", 2) == {(200, "aggregated"): 2}
    assert at_once(stack, "m0", 2) == {(200, "two_step"): 2}
    assert at_once(stack, "m2", 2) == {(200, "aggregated"): 2}
    assert {len(held_by(stack, name)) for name in ("m0", "m1")} <= {0, 2}
    eventually(lambda: settled(stack), within_s=60, what="as many engines as slots that are taken")


def test_a_half_whose_engine_is_killed_is_started_again_and_costs_no_answer(stack: Stack) -> None:
    assert at_once(stack, "m0", 2) == {(200, "two_step"): 2}
    eventually(lambda: settled(stack), within_s=60, what="all is ready")
    partition = held_by(stack, "m0")["prefill"]["id"]
    psutil.Process(stack.engine_pids()[partition]).kill()
    answers = at_once(stack, "m0", 6)
    assert {status for status, _ in answers} == {200}
    eventually(lambda: at_once(stack, "m0", 1) == {(200, "two_step"): 1}, within_s=60, what="the pair is whole again")
    eventually(lambda: settled(stack), within_s=60, what="as many engines as slots that are taken")


def test_what_is_left_of_a_pair_is_given_back_and_the_next_request_wakes_it_whole(stack: Stack) -> None:
    assert at_once(stack, "m0", 2) == {(200, "two_step"): 2}
    stack.rest("POST", f"/partitions/{held_by(stack, 'm0')['prefill']['id']}/release", json={})
    eventually(lambda: not held_by(stack, "m0"), within_s=30, what="the other half is given back")
    eventually(lambda: settled(stack), within_s=60, what="its engines are gone")
    assert at_once(stack, "m0", 3) == {(200, "two_step"): 3}
    eventually(lambda: settled(stack), within_s=60, what="as many engines as slots that are taken")


def test_a_pair_of_which_no_engine_starts_is_told_to_everybody_and_leaves_nothing_behind(stack: Stack) -> None:
    stack.rest("PATCH", f"/deployments/{pool_id(stack, 'm2')}", json={"pool_shape": "pair"})
    for row in held_by(stack, "m2").values():
        stack.rest("POST", f"/partitions/{row['id']}/release", json={})
    eventually(lambda: settled(stack), within_s=60, what="its engine is gone")
    program = Path(stack.environ["FOREBAY_VLLM"])
    before = program.read_text()
    program.write_text('#!/bin/sh\n[ "$1" = serve ] && { echo "ValueError: no such weights" >&2; exit 1; }\n' + before)
    try:
        answers = at_once(stack, "m2", 4)
    finally:
        program.write_text(before)
    assert {status for status, _ in answers} == {503}
    assert all("activation_failed" in text for _, text in answers)
    rows = activations(stack, "m2")
    assert [(row["state"], row["shape"]) for row in rows[:2]] == [("failed", "pair")] * 2
    assert "no such weights" in rows[0]["message"]
    assert held_by(stack, "m2") == {}
    eventually(lambda: settled(stack), within_s=60, what="as many engines as slots that are taken")


@pytest.mark.skipif(bool(os.environ.get("FOREBAY_VLLM")), reason="other engines were asked for")
def test_real_engines_hand_over_kv_in_a_pair_that_was_woken(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home", demo="none", slots=2)
    stack.environ |= {"FOREBAY_DEVICES": "cpu", "FOREBAY_QUALIFY": "never"}
    make_tiny_model(stack.home / "models" / "tiny")
    try:
        stack.up()
        furnish(stack, 2, "pair")
        assert at_once(stack, "m0", 4) == {(200, "two_step"): 4}
        again = send(stack, "m0")
        assert (again.headers["x-forebay-path"], "wake" in again.headers["server-timing"]) == ("two_step", False)
        [activation] = activations(stack, "m0")
        assert activation["waiters"] == 4
    finally:
        stack.clean_up()
