"""A dedicated deployment overflows into the pool and back, through the whole stack. The engines are stand-ins."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench import _standins
from tests.e2e.stack import Stack, eventually

CLIENTS, SLOTS = 6, 3


@dataclass
class Load:
    """Clients that ask all the time, until it ends."""

    stack: Stack
    paths: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended.set()
        for client in self.clients:
            client.join(60)

    def _ask(self) -> None:
        while not self.ended.is_set():
            answer = send(self.stack)
            if answer.status_code != 200:
                self.bad.append(answer.text)
            self.paths[answer.headers.get("x-forebay-path", "")] += 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("overflow")
    made = Stack(home / "home", demo="none", slots=SLOTS)
    _standins.settle(made, "tiny", home)
    made.environ |= {
        "FOREBAY_POOL_MIN_RESIDENCE_S": "0", "FOREBAY_POOL_FREE": "1", "FOREBAY_QUALIFY": "never",
        "FOREBAY_GATEWAY_OVERFLOW_S": "0.05", "FOREBAY_GATEWAY_WAIT_S": "0",
    }  # fmt: skip
    try:
        made.up()
        furnish(made)
        yield made
    finally:
        made.clean_up()


def furnish(stack: Stack) -> None:
    """A dedicated deployment on one partition, whose engine takes one request at once, and two slots."""
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")[0]["id"]
    stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(SLOTS)]})
    own, *slots = stack.partitions()
    for row in slots:
        stack.rest("PATCH", f"/partitions/{row['id']}", json={"pool": True})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    body = {"name": "steady", "model": model, "aggregated_max_requests": 1, "keep_alive_s": 3}
    deployment = stack.rest("POST", "/deployments", json=body)["id"]
    stack.rest("POST", f"/partitions/{own['id']}/assign", json={"deployment": deployment, "role": "aggregated"})
    eventually(lambda: send(stack).status_code == 200, within_s=60, what="its own engine serves")
    stack.rest("PATCH", f"/deployments/{deployment}", json={"overflow": True})


def test_it_overflows_while_its_engine_is_full_and_the_slot_is_taken_back_afterwards(stack: Stack) -> None:
    with Load(stack) as load:
        eventually(lambda: load.paths["overflow"] > 20, within_s=60, what="requests overflow")
        [slot] = lent(stack)
        assert (slot["deployment"]["name"], slot["role"]) == ("steady", "aggregated")
        told = eventually(lambda: in_the_pool(stack, slot["id"], "lent"), within_s=10, what="the pool tells of it")
        assert "its own engines are full" in told["lent_why"]
    assert not load.bad
    assert load.paths["aggregated"] > 20, "its own engine has served all the while"
    eventually(lambda: not lent(stack), within_s=30, what="the slot is taken back after its keep-alive")
    eventually(lambda: in_the_pool(stack, slot["id"], "free"), within_s=30, what="it is free again")
    [activation] = stack.rest("GET", "/activations")["results"]
    assert (activation["cause"], activation["state"]) == ("overflow", "ready"), "one start, however many were in line"
    assert send(stack).headers["x-forebay-path"] == "aggregated"


def test_without_an_engine_of_its_own_a_slot_serves_it_until_it_is_back(stack: Stack) -> None:
    own = next(row for row in stack.partitions() if not row["pool"])
    deployment = own["deployment"]["id"]
    stack.rest("POST", f"/partitions/{own['id']}/release", json={})
    eventually(lambda: own["id"] not in stack.engines(), within_s=60, what="its engine has ended")
    answer = eventually(lambda: overflowed(stack), within_s=60, what="a slot serves it")
    assert answer.status_code == 200
    stack.rest("POST", f"/partitions/{own['id']}/assign", json={"deployment": deployment, "role": "aggregated"})
    eventually(lambda: send(stack).headers.get("x-forebay-path") == "aggregated", within_s=60, what="its own serves")
    eventually(lambda: not lent(stack), within_s=30, what="the slot is taken back")


def overflowed(stack: Stack) -> httpx.Response | None:
    answer = send(stack)
    return answer if answer.headers.get("x-forebay-path") == "overflow" else None


def send(stack: Stack) -> httpx.Response:
    body = {"model": "steady", "prompt": "What holds water ready?", "max_tokens": 40}
    headers = {"Authorization": f"Bearer {stack.key}"}
    return httpx.post(f"{stack.gateway}/v1/completions", headers=headers, json=body, timeout=120)


def lent(stack: Stack) -> list[dict[str, Any]]:
    return [row for row in stack.partitions() if row["overflow"]]


def in_the_pool(stack: Stack, partition: int, place: str) -> dict[str, Any] | None:
    slots = stack.rest("GET", "/pool")["slots"]
    return next((slot for slot in slots if slot["partition"]["id"] == partition and slot["place"] == place), None)
