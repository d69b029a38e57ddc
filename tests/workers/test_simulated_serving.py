"""One server answers for all simulated engines: over real connections, each engine told by its key."""

from __future__ import annotations

import asyncio
import json
from random import Random

import aiohttp
import pytest

from workers.contract import NodeSpec, Phase, ReplicaSpec, ReportReply, Role
from workers.simulated_fleet.faults import parse
from workers.simulated_fleet.host import Curve, Host
from workers.simulated_fleet.load import Engine, Ills
from workers.simulated_fleet.serving import Served, serve

AT = 1_800_000_000.0
BODY = {"model": "chat", "prompt": "a b c d " * 8, "max_tokens": 3, "stream": True}


def talk(engine: Engine, *bodies: dict[str, object], key: str = "k", path: str = "/v1/completions") -> list[tuple]:
    """Each answer: its status, its text, and the seconds that it took."""

    async def run() -> list[tuple]:
        server, port = await serve({"k": Served("chat", engine)}.get, "127.0.0.1")
        loop, found = asyncio.get_running_loop(), []
        headers = {"Authorization": f"Bearer {key}"}
        async with server, aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            for body in bodies:
                began = loop.time()
                async with session.post(path, json=body) as reply:
                    found.append((reply.status, await reply.text(), loop.time() - began))
        return found

    return asyncio.run(run())


def test_a_stream_has_its_tokens_its_usage_and_an_end_and_is_counted() -> None:
    engine = Engine(Role.AGGREGATED, Random(1))
    ((status, text, _),) = talk(engine, BODY | {"stream_options": {"include_usage": True}})
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert status == 200 and events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:3]) == "this text is "
    assert chunks[2]["choices"][0]["finish_reason"] == "length"
    assert chunks[3]["usage"]["completion_tokens"] == 3
    sample = engine.sample(whole=False)
    assert (sample.requests_total, sample.generation_tokens_total, sample.ttft_count, sample.itl_count) == (1, 3, 1, 2)
    assert engine.in_flight == 0


def test_a_prefill_hands_over_and_a_chat_speaks_in_deltas() -> None:
    engine = Engine(Role.PREFILL, Random(1))
    whole = BODY | {"stream": False, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}}
    ((status, text, _),) = talk(engine, whole)
    assert status == 200 and json.loads(text)["kv_transfer_params"]["do_remote_prefill"] is True
    chat = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "stream": True}
    ((_, text, _),) = talk(engine, chat, path="/v1/chat/completions")
    assert json.loads(text.split("\n")[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"


def test_a_slow_engine_is_slow_to_those_who_ask_it() -> None:
    engine = Engine(Role.DECODE, Random(1), ills=Ills(first_s=0.3, token_s=0.1))
    ((_, _, took_s),) = talk(engine, BODY)
    assert took_s > 0.5


@pytest.mark.parametrize(
    ("body", "key", "path", "status"),
    [
        (BODY, "other", "/v1/completions", 401),
        (BODY, "k", "/v1/embeddings", 404),
        ({"max_tokens": "many"}, "k", "/v1/completions", 400),
    ],
)
def test_what_cannot_be_answered_is_refused(body: dict[str, object], key: str, path: str, status: int) -> None:
    refused, well = talk(Engine(Role.DECODE, Random(1)), body, body, key=key, path=path)
    assert (refused[0], well[0]) == (status, status), "the connection goes on"


def test_only_an_engine_that_is_ready_answers() -> None:
    host = Host(7, "sim-0001", 2, Curve(seed=1), endpoint="http://127.0.0.1:9")
    replica = ReplicaSpec(
        partition=3, name="p0", deployment="chat", role=Role.DECODE, gpus=("SIM-sim-0001-0",), model="/m",
        served_names=("chat",), generation=1, api_key="k",
    )  # fmt: skip
    host.take(ReportReply(at=AT, spec=NodeSpec(node=7, generation=1, replicas=(replica,))))
    assert host.report(AT + 1).replicas[0].phase == Phase.STARTING and dict(host.serving()) == {}
    for second in range(2, 20):
        report = host.report(AT + second)
    assert report.replicas[0].endpoint == "http://127.0.0.1:9"
    engine = dict(host.serving())["k"].engine
    host.faults = frozenset([parse("crash-loop sim-0001/p0")])
    host.report(AT + 30)
    assert engine.is_dead and dict(host.serving()) == {}
