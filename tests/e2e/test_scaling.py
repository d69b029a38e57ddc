"""The loop closed: tokens come late, an engine starts by itself; it is quiet, and one goes again. No request fails.
The engines are stand-ins."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench import _standins
from tests.e2e.stack import Stack, eventually

SLOTS = 2


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("scaling")
    one = Stack(home / "home", demo="none", slots=SLOTS)
    _standins.settle(one, "tiny", home)
    one.environ |= {"FOREBAY_SCALING_EVERY_S": "3", "FOREBAY_QUALIFY": "never"}
    try:
        one.up()
        furnish(one)
        yield one
    finally:
        one.clean_up()


def furnish(stack: Stack) -> None:
    """One engine of a deployment that no engine can serve in time, and a free slot."""
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")[0]["id"]
    stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(SLOTS)]})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    wishes = {"name": "chat", "model": model, "slo_itl_ms": 1, "slo_ttft_ms": 60000, "max_aggregated": 2}
    deployment = stack.rest("POST", "/deployments", json=wishes)["id"]
    first = stack.partitions()[0]["id"]
    stack.rest("POST", f"/partitions/{first}/assign", json={"deployment": deployment, "role": "aggregated"})
    eventually(lambda: ready(stack) == 1, within_s=60, what="the first engine")


def test_late_tokens_start_an_engine_and_a_quiet_time_ends_one_without_a_failed_request(stack: Stack) -> None:
    stack.rest("PATCH", "/scaling/policy", json={"auto_apply": True, "quiet_s": 60})
    clients = Clients(stack)
    try:
        eventually(lambda: ready(stack) == 2, within_s=60, what="a second engine")
        [plan] = applied(stack)
        assert plan["automatic"]
        assert "ITL p95" in plan["moves"][0]["why"]
        assert stack.rest("GET", f"/changes/{plan['change']}")["actor"] == "planner"
        stack.rest("PATCH", f"/deployments/{deployment(stack)}", json={"slo_itl_ms": 60000})
        eventually(lambda: ready(stack) == 1, within_s=150, what="one engine fewer")
        assert "one fewer has been enough" in applied(stack)[0]["moves"][0]["why"]
    finally:
        clients.end()
    assert set(clients.answers) == {200}
    assert clients.answers[200] > 50


class Clients:
    """Two who ask one request after the other."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.answers, self.ended = stack, Counter[int](), threading.Event()
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        body = {"model": "chat", "prompt": "What holds water ready?", "max_tokens": 8, "stream": True}
        with httpx.Client(headers={"Authorization": f"Bearer {self.stack.key}"}, timeout=60) as client:
            while not self.ended.wait(0.1):
                answer = client.post(f"{self.stack.gateway}/v1/completions", json=body)
                self.answers[answer.status_code if "[DONE]" in answer.text else -1] += 1

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(60)


def ready(stack: Stack) -> int:
    return sum(bool(row["deployment"]) and row["confirmed"] for row in stack.partitions())


def deployment(stack: Stack) -> int:
    return int(stack.rest("GET", "/deployments?name=chat")["results"][0]["id"])


def applied(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.rest("GET", "/scaling/plans?state=applied")["results"])
