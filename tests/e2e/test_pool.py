"""Parts of Forebay are killed while models are being woken: every request is answered, no slot gets two engines, and
nothing is started twice or left over. The engines are stand-ins that take three seconds to start."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench import _standins
from tests.e2e.stack import Stack, eventually, free_ports

MODELS, SLOTS, START_S = 7, 2, 3.0
PARTS = {"agent": "workers run", "worker": "celery", "broker": "valkey-server", "gateway": "manage.py gateway"}


@dataclass
class Watch(threading.Thread):
    """Looks all the while at how many engines each slot has."""

    stack: Stack
    most: Counter[int] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.ended.wait(0.2):
            for partition, count in self.stack.engines().items():
                self.most[partition] = max(self.most[partition], count)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("pool")
    stack = Stack(home / "home", demo="none", slots=SLOTS)
    _standins.settle(stack, "tiny", home)
    slowly(home / "vllm")
    stack.environ |= {"FOREBAY_POOL_MIN_RESIDENCE_S": "0", "FOREBAY_POOL_FREE": "0", "FOREBAY_QUALIFY": "never"}
    try:
        stack.up()
        furnish(stack)
        yield stack
    finally:
        stack.clean_up()


def slowly(program: Path) -> None:
    lines = program.read_text().splitlines()
    program.write_text("\n".join([lines[0], f'[ "$1" = serve ] && sleep {START_S}', *lines[1:]]) + "\n")


def furnish(stack: Stack) -> None:
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")[0]["id"]
    stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(SLOTS)]})
    for row in stack.partitions():
        stack.rest("PATCH", f"/partitions/{row['id']}", json={"pool": True})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    for number in range(MODELS):
        stack.rest("POST", "/deployments", json={"name": f"m{number}", "model": model, "mode": "pooled"})
    eventually(lambda: known(stack) == MODELS, within_s=30, what="the gateway knows them")


def known(stack: Stack) -> int:
    headers = {"Authorization": f"Bearer {stack.key}"}
    return len(httpx.get(f"{stack.gateway}/v1/models", headers=headers, timeout=10).json()["data"])


@pytest.mark.parametrize(("number", "part"), list(enumerate(PARTS)))
def test_a_part_that_is_killed_while_a_model_is_woken_costs_no_answer(pool: Stack, number: int, part: str) -> None:
    name, watch = f"m{number}", Watch(pool)
    watch.start()
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(ask, pool, name, again=part == "gateway") for _ in range(4)]
        eventually(lambda: woken(pool, name), within_s=30, what=f"{name} has a slot")
        victim = pool.part(PARTS[part])
        victim.kill()
        assert [one.result(120) for one in asked] == [200] * 4
    eventually(lambda: pool.part(PARTS[part]).pid != victim.pid, within_s=60, what=f"a new {part}")
    eventually(lambda: settled(pool), within_s=60, what="as many engines as slots that are taken")
    watch.ended.set()
    watch.join()
    assert max(watch.most.values()) == 1, "no slot ever had two engines"
    the_one_start_that_is_ready(pool, name)


def test_two_hundred_at_once_for_a_model_that_sleeps_start_it_once(pool: Stack) -> None:
    with (
        httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None)) as client,
        ThreadPoolExecutor(200) as many,
    ):
        answers = list(many.map(lambda _: ask(pool, "m5", client=client), range(200)))
    assert Counter(answers) == {200: 200}
    assert the_one_start_that_is_ready(pool, "m5")["waiters"] > 100


def test_weights_that_cannot_be_served_are_told_to_everybody_and_the_slot_is_free_again(pool: Stack) -> None:
    program = Path(pool.environ["FOREBAY_VLLM"])
    before = program.read_text()
    program.write_text('#!/bin/sh\n[ "$1" = serve ] && { echo "ValueError: no such weights" >&2; exit 1; }\n' + before)
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(5) as clients:
            refusals = list(clients.map(lambda _: refusal(pool, "m4"), range(5)))
    finally:
        program.write_text(before)
    assert {one["code"] for one in refusals} == {"activation_failed"}
    assert all("its model files could not be loaded" in one["message"] for one in refusals)
    assert time.monotonic() - began < 60
    rows = pool.rest("GET", f"/activations?deployment={pool_id(pool, 'm4')}")["results"]
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert "no such weights" in rows[0]["message"]
    assert not [row for row in pool.partitions() if row["deployment"] and row["deployment"]["name"] == "m4"]
    alert = eventually(lambda: alerts(pool), within_s=40, what="an alert")
    assert "no such weights" in alert[0]["text"]


def test_two_gateways_wake_a_model_once_and_one_that_dies_takes_only_its_own_requests_along(pool: Stack) -> None:
    watch = Watch(pool)
    watch.start()
    with second_gateway(pool) as (second, url), ThreadPoolExecutor(20) as clients:
        here = [clients.submit(ask, pool, "m6") for _ in range(10)]
        there = [clients.submit(ask, pool, "m6", url=url) for _ in range(10)]
        eventually(lambda: woken(pool, "m6"), within_s=30, what="m6 has a slot")
        second.kill()
        assert [one.result(120) for one in here] == [200] * 10
        assert [one.result(120) for one in there] == [0] * 10
    assert ask(pool, "m6") == 200
    watch.ended.set()
    watch.join()
    assert max(watch.most.values()) == 1, "no slot ever had two engines"
    assert the_one_start_that_is_ready(pool, "m6")["waiters"] == 10, "each tells those that wait with it"


def test_a_gateway_that_did_not_hear_of_a_model_that_left_loses_no_request(pool: Stack) -> None:
    """It stands still while an idle model makes room, so its table still has that model's engine. The engine was shut
    and is gone, or another one has its port: the request goes elsewhere, and wakes the model."""
    with second_gateway(pool) as (second, url), ThreadPoolExecutor(2) as clients:
        assert ask(pool, "m5", url=url) == 200, "its table has an engine of m5"
        before = slot_of(pool, "m5")
        time.sleep(3.0)  # gateways have told that it is idle
        second.send_signal(signal.SIGSTOP)
        try:
            late = clients.submit(ask, pool, "m5", url=url)  # lies in its socket until it goes on
            others = [name for name in ("m0", "m1", "m2", "m3", "m6") if slot_of(pool, name) is None]
            for name in others[:SLOTS]:
                assert ask(pool, name) == 200
                if slot_of(pool, "m5") is None:
                    break
            assert before is not None and slot_of(pool, "m5") is None, "another model has its slot"
        finally:
            second.send_signal(signal.SIGCONT)
        assert late.result(60) == 200
    eventually(lambda: settled(pool), within_s=60, what="as many engines as slots that are taken")


def slot_of(stack: Stack, name: str) -> int | None:
    rows = [row for row in stack.partitions() if row["deployment"] and row["deployment"]["name"] == name]
    return rows[0]["id"] if rows else None


@contextmanager
def second_gateway(stack: Stack) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Like the first one, on a port of its own."""
    first, [port] = stack.part("manage.py gateway"), free_ports(1)
    argv = [str(port) if word == stack.gateway.rpartition(":")[2] else word for word in first.cmdline()]
    process = subprocess.Popen(argv, cwd=first.cwd(), env=first.environ())
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: is_up(url), within_s=30, what="a second gateway")
        yield process, url
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def ask(
    stack: Stack, name: str, *, again: bool = False, client: httpx.Client | None = None, url: str | None = None
) -> int:
    """The status of one request, 0 where the connection broke. `again`: as clients do then."""
    post: Callable[..., httpx.Response] = client.post if client else httpx.post
    for _ in range(60):
        try:
            return send(stack, name, post, url).status_code
        except httpx.TransportError:
            if not again:
                return 0
            time.sleep(0.5)
    return 0


def send(
    stack: Stack, name: str, post: Callable[..., httpx.Response] = httpx.post, url: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.key}"}
    body = {"model": name, "prompt": "What holds water ready?", "max_tokens": 3}
    return post(f"{url or stack.gateway}/v1/completions", headers=headers, json=body, timeout=120)


def the_one_start_that_is_ready(stack: Stack, name: str) -> dict[str, Any]:
    """The model's only activation. Requests are let go when the gateway sees the engine; that the activation is over is
    written at the worker's next look."""
    path = f"/activations?deployment={pool_id(stack, name)}"
    ended = eventually(lambda: [row for row in stack.rest("GET", path)["results"] if row["state"] != "starting"],
                       within_s=30, what=f"the activation of {name} is over")  # fmt: skip
    [activation] = stack.rest("GET", path)["results"]
    assert ([activation["state"] for activation in ended], starts(stack, name)) == (["ready"], 1)
    return dict(activation)


def refusal(stack: Stack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = send(stack, name).json()["error"]
    return found


def pool_id(stack: Stack, name: str) -> int:
    return int(stack.rest("GET", f"/deployments?name={name}")["results"][0]["id"])


def woken(stack: Stack, name: str) -> bool:
    rows = stack.rest("GET", "/activations?state=starting")["results"]
    return any(row["deployment"]["name"] == name for row in rows)


def starts(stack: Stack, name: str) -> int:
    events = stack.rest("GET", "/events?verb=engine-started&page_size=200")["results"]
    return sum((event["after"] or {}).get("deployment") == name for event in events)


def alerts(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.rest("GET", "/alerts?rule=activation-failing&state=firing")["results"])


def settled(stack: Stack) -> bool:
    """Every engine that there is fills a slot, and is ready."""
    try:
        rows = stack.partitions()
    except (httpx.TransportError, AssertionError):
        return False
    taken = {row["id"] for row in rows if row["deployment"]}
    return all(row["confirmed"] for row in rows if row["deployment"]) and set(stack.engines()) == taken
