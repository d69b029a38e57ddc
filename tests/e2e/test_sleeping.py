"""Models take turns in one slot through the whole stack, asleep while another is awake. The engines are stand-ins on a
simulated device that counts their memory, and take three seconds to start; no GPU has a part in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench import _standins
from tests.e2e.stack import Stack, eventually
from tests.e2e.test_pool import START_S, known, slowly

MODELS = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("sleeping")
    made = Stack(home / "home", demo="none", slots=MODELS)
    _standins.settle(made, "tiny", home)
    slowly(home / "vllm")
    made.environ |= {
        "FOREBAY_DEVICES": "simulated:1", "FOREBAY_POOL_SLEEPERS": "2", "FOREBAY_SLEEP_CAP": "64GiB",
        "FOREBAY_SLEEP_REST": "200MiB", "FOREBAY_POOL_MIN_RESIDENCE_S": "0", "FOREBAY_POOL_FREE": "0",
        "FOREBAY_QUALIFY": "never",
    }  # fmt: skip
    try:
        made.up()
        furnish(made)
        yield made
    finally:
        made.clean_up()


def furnish(stack: Stack) -> None:
    eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")
    if not stack.partitions():
        node = stack.rest("GET", "/nodes")["results"][0]["id"]
        stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[0]]})
    [slot] = stack.partitions()
    stack.rest("PATCH", f"/partitions/{slot['id']}", json={"pool": True})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    for number in range(MODELS):
        body = {"name": f"m{number}", "model": model, "mode": "pooled", "keep_alive_s": 1}
        stack.rest("POST", "/deployments", json=body)
    eventually(lambda: known(stack) == MODELS, within_s=30, what="the gateway knows them")


def ask(stack: Stack, name: str) -> float:
    """How long the answer took."""
    began, headers = time.monotonic(), {"Authorization": f"Bearer {stack.key}"}
    body = {"model": name, "prompt": "What holds water ready?", "max_tokens": 4}
    answer = httpx.post(f"{stack.gateway}/v1/completions", headers=headers, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - began


def slot_of(stack: Stack) -> dict[str, Any]:
    return stack.rest("GET", "/pool")["slots"][0]


def asleep(stack: Stack) -> set[str]:
    return {one["deployment"]["name"] for one in slot_of(stack)["sleepers"]}


def ended(stack: Stack) -> list[dict[str, Any]] | None:
    rows = stack.rest("GET", "/activations")["results"]
    return rows if all(row["ended_at"] for row in rows) else None


def test_models_that_take_turns_in_a_slot_are_started_once_and_woken_from_then_on(stack: Stack) -> None:
    assert slot_of(stack)["sleep_why_not"] == ""
    started = [ask(stack, f"m{number}") for number in range(MODELS)]
    assert min(started) > START_S
    eventually(lambda: asleep(stack) == {"m0", "m1"}, within_s=30, what="two sleep")
    assert slot_of(stack)["deployment"]["name"] == "m2"
    there = sorted(stack._leaders())
    woken = [ask(stack, name) for name in ("m0", "m1", "m2", "m0")]
    print(f"started {[round(s, 1) for s in started]}, woken {[round(s, 1) for s in woken]}")
    eventually(lambda: asleep(stack) == {"m1", "m2"}, within_s=30, what="the other two sleep")
    assert sorted(stack._leaders()) == there and len(there) == MODELS
    rows = eventually(lambda: ended(stack), within_s=30, what="it is noted that all are ready")
    assert [(row["deployment"]["name"], row["woken"], row["state"]) for row in rows] == [
        ("m0", True, "ready"), ("m2", True, "ready"), ("m1", True, "ready"), ("m0", True, "ready"),
        ("m2", False, "ready"), ("m1", False, "ready"), ("m0", False, "ready"),
    ]  # fmt: skip
    verbs = [event["verb"] for event in stack.rest("GET", "/events?page_size=200")["results"]]
    assert verbs.count("engine-ready") == MODELS and verbs.count("engine-woke") == 4


def test_a_release_leaves_no_engine_behind(stack: Stack) -> None:
    [slot] = stack.partitions()
    stack.rest("POST", f"/partitions/{slot['id']}/release", json={})
    eventually(lambda: not sum(stack.engines().values()), within_s=60, what="all three have ended")
    assert not asleep(stack) and ask(stack, "m1") > START_S
