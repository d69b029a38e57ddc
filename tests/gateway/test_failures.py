"""Engines that fail, are slow or lie; clients that hang up or stall. Before the first byte the request goes
elsewhere; after it the stream ends with an error the client can see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from controlplane.gateway.table import Engine
from tests.gateway.conftest import KEY, MakeSite, Site, events, eventually
from tests.standin_engine import Standin
from tests.standin_words import Behaviour


def attempts(site: Site) -> int:
    return site.trips()[-1].attempts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 503}, {"garbage": True}, {"status": 401}, {"status": 404}]
)
async def test_a_prefill_that_fails_is_replaced_by_another(
    make_site: MakeSite, fault: dict[str, Any], stream: bool
) -> None:
    site = await make_site(prefill=2)
    site.prefill[0].act = Behaviour(**fault)
    for _ in range(4):
        reply = await site.complete(stream=stream)
        assert reply.status_code == 200
        assert reply.headers["x-forebay-prefill"] == "node/prefill1"
    assert len(site.prefill[0].bodies()) <= 1, "it is avoided for a while"


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        ({"status": 500}, False),
        ({"status": 500}, True),
        ({"garbage": True}, False),
        ({"garbage": True}, True),
        ({"die_after": 0}, True),
    ],
)
async def test_a_decode_that_fails_before_the_first_byte_is_replaced_and_its_blocks_never_replayed(
    make_site: MakeSite, fault: dict[str, Any], stream: bool
) -> None:
    site = await make_site(prefill=2, decode=2)
    site.decode[0].act = Behaviour(**fault)
    for i in range(4):
        reply = await site.complete(stream=stream, prompt=f"{i} and so on")
        assert reply.status_code == 200
        assert reply.headers["x-forebay-decode"] == "node/decode1"
        assert reply.headers["x-forebay-path"] == "two_step"
    handed = [body["kv_transfer_params"]["remote_request_id"] for engine in site.decode for body in engine.bodies()]
    assert len(handed) == len(set(handed))


async def test_an_engine_that_is_gone_is_replaced(make_site: MakeSite) -> None:
    site = await make_site(prefill=2, decode=2)
    await site.prefill[0].stop()
    await site.decode[1].stop()
    for i in range(4):
        reply = await site.complete(prompt=f"{i} and so on")
        assert (reply.status_code, reply.headers["x-forebay-decode"]) == (200, "node/decode0")


async def test_the_last_prefill_failing_leaves_decode_to_serve_alone(make_site: MakeSite) -> None:
    site = await make_site()
    site.prefill[0].act.status = 500
    reply = await site.complete()
    assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "direct")
    trip = await site.recorded()
    assert (trip.attempts, trip.outcome, trip.error) == (2, "ok", "")


async def test_attempts_are_bounded(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=6)
    for engine in site.decode:
        engine.act.status = 500

    reply = await site.complete()

    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "engines_failed"
    assert int(reply.headers["retry-after"]) >= 1
    assert sum(len(engine.bodies()) for engine in site.decode) == 3
    trip = await site.recorded()
    assert (trip.outcome, trip.status, trip.attempts) == ("error", 503, 3)
    assert "answered 500" in trip.error


async def test_no_engine_at_all_is_unavailable_with_retry_after(make_site: MakeSite) -> None:
    site = await make_site(prefill=1, decode=0)
    reply = await site.complete()
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "5"
    assert reply.json()["error"]["type"] == "server_error"
    assert (await site.recorded()).outcome == "error"


async def test_a_suspect_is_used_when_there_is_no_other_and_trusted_again(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=1)
    site.decode[0].act.status = 500
    assert (await site.complete()).status_code == 503
    site.decode[0].act.status = 0
    assert (await site.complete()).status_code == 200
    assert not site.gateway.engines._suspects(site.table)


async def test_a_request_the_engine_calls_wrong_is_not_tried_again(make_site: MakeSite) -> None:
    site = await make_site(prefill=2, decode=2)
    for engine in site.prefill:
        engine.act.status = 400
        engine.act.status_body = b'{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'

    reply = await site.complete()

    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "too long"
    assert sum(len(engine.bodies()) for engine in site.prefill) == 1
    trip = await site.recorded()
    assert (trip.outcome, trip.status) == ("client_error", 400)
    assert not site.gateway.engines._suspects(site.table)


@pytest.mark.parametrize("said", [b"plain words", b'{"detail":[{"msg":"bad"}]}', b"\xff\xfe", b""])
async def test_a_refusal_in_another_form_is_put_in_openais(make_site: MakeSite, said: bytes) -> None:
    site = await make_site(prefill=0)
    site.decode[0].act.status, site.decode[0].act.status_body = 422, said
    reply = await site.complete()
    assert reply.status_code == 422
    assert isinstance(reply.json()["error"]["message"], str)


async def test_an_error_event_before_any_text_is_tried_elsewhere(make_site: MakeSite) -> None:
    async def answer_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        event = b'data: {"error":{"message":"out of memory","type":"x","param":null,"code":500}}\n\ndata: [DONE]\n\n'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(head + event)
        writer.close()

    site = await make_site(prefill=0, decode=2)
    await site.decode[0].stop()
    server = await asyncio.start_server(answer_error, "127.0.0.1", 0)
    rewire(site, 1, server.sockets[0].getsockname()[1])
    for i in range(3):
        reply = await site.complete(stream=True, prompt=f"{i} x")
        assert reply.status_code == 200
        assert "out of memory" not in reply.text
    server.close()


async def test_a_prefill_is_redone_past_the_kv_deadline(make_site: MakeSite) -> None:
    """The first decode takes no connection's request in time, so its blocks are let go and new ones made."""
    site = await make_site(prefill=1, decode=2, kv_deadline_s=0.15)
    slow = next(engine for engine in site.decode)
    slow.act.hang = True

    replies = [await site.complete(stream=True, prompt=f"{i} and more") for i in range(3)]

    assert [reply.status_code for reply in replies] == [200] * 3
    assert {reply.headers["x-forebay-decode"] for reply in replies} == {"node/decode1"}
    late = [trip for trip in site.trips() if trip.kv_late]
    assert late and all(trip.attempts == 2 for trip in late)
    assert len(site.prefill[0].bodies()) == 3 + len(late)
    used = [body["kv_transfer_params"]["remote_request_id"] for engine in site.decode for body in engine.bodies()]
    assert len(used) == len(set(used))


async def test_a_decode_frozen_past_the_kv_deadline_is_left_before_it_can_pull_late(make_site: MakeSite) -> None:
    """A whole answer gives no sign that it was begun, so the engine is asked whether it lives."""
    site = await make_site(prefill=1, decode=2, kv_deadline_s=0.1, health_s=0.1)
    site.decode[0].act.frozen = True
    for i in range(3):
        reply = await site.complete(prompt=f"{i} and more")
        assert (reply.status_code, reply.headers["x-forebay-decode"]) == (200, "node/decode1")
    assert any(trip.kv_late for trip in site.trips())


async def test_a_decode_that_only_takes_long_is_waited_for(make_site: MakeSite) -> None:
    site = await make_site(kv_deadline_s=0.1)
    site.decode[0].act.first_s = 0.4
    assert (await site.complete()).status_code == 200
    assert (await site.recorded()).attempts == 1


async def test_blocks_are_not_handed_over_after_the_deadline(make_site: MakeSite) -> None:
    """Only connecting takes long: the request must then not be sent at all."""
    site = await make_site(kv_deadline_s=0.0)
    reply = await site.complete()
    assert reply.status_code == 503
    assert not site.decode[0].bodies()
    assert len(site.prefill[0].bodies()) == 3
    assert (await site.recorded()).kv_late == 3


async def test_a_stream_that_breaks_ends_with_an_error_event(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.die_after = 2

    reply = await site.complete(stream=True, max_tokens=8)

    assert reply.status_code == 200
    *text, last = events(reply.text)
    assert len(text) == 2
    assert json.loads(last)["error"]["code"] == "engine_failed"
    assert "[DONE]" not in reply.text
    trip = await site.recorded()
    assert (trip.outcome, trip.status, trip.completion_tokens) == ("error", 200, 2)
    assert "closed the connection" in trip.error
    assert trip.prompt_tokens, "known from the prefill"


async def test_the_official_client_sees_a_broken_stream_as_an_error(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.die_after = 2
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=KEY, max_retries=0)
    stream = await client.completions.create(model="tiny", prompt="x", max_tokens=8, stream=True)
    with pytest.raises(openai.APIError, match="failed during the answer"):
        async for _ in stream:
            pass
    await client.close()


async def test_an_engine_that_falls_silent_ends_the_stream(make_site: MakeSite) -> None:
    site = await make_site(silence_s=0.2)
    site.decode[0].act.itl_s = 5.0
    reply = await site.complete(stream=True)
    assert json.loads(events(reply.text)[-1])["error"]["code"] == "engine_failed"
    assert "silent" in (await site.recorded()).error
    await eventually(lambda: site.decode[0].running == 0)


async def test_a_prefill_that_never_answers_is_given_up(make_site: MakeSite) -> None:
    site = await make_site(prefill_s=0.2)
    site.prefill[0].act.hang = True
    reply = await site.complete()
    assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "direct")
    assert site.prefill[0].aborted == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("step", ["prefill", "decode"])
async def test_a_client_that_hangs_up_cancels_the_engines_work(make_site: MakeSite, step: str, stream: bool) -> None:
    site = await make_site()
    engine: Standin = getattr(site, step)[0]
    engine.act.first_s = 30.0

    with pytest.raises(httpx.ReadTimeout):
        await site.client.post(
            "/v1/completions", json={"model": "tiny", "prompt": "x", "stream": stream}, timeout=httpx.Timeout(0.3)
        )

    await eventually(lambda: engine.running == 0)
    assert engine.aborted == 1
    trip = await site.recorded()
    assert (trip.outcome, trip.status) == ("cancelled", 499)
    assert not any(site.gateway.engines.load.values())
    if step == "prefill":
        assert not site.decode[0].bodies()


async def test_a_client_that_hangs_up_during_its_stream_cancels_the_engines_work(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.itl_s = 0.02
    body = {"model": "tiny", "prompt": "x", "max_tokens": 5000, "stream": True}
    async with site.client.stream("POST", "/v1/completions", json=body) as reply:
        async for _ in reply.aiter_raw():
            break
    await eventually(lambda: site.decode[0].running == 0)
    trip = await site.recorded()
    assert trip.outcome == "cancelled"
    assert trip.completion_tokens and trip.completion_tokens < 50, "what was seen of it is metered"


async def test_a_slow_reader_slows_the_engine_and_fills_no_memory(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.padding = 60_000
    async with slow_client(site.port) as (reader, writer):
        await ask_for_a_stream(writer, tokens=800)
        await eventually(lambda: site.transports() and site.transports()[0].get_write_buffer_size() > 65_536)
        await asyncio.sleep(0.3)
        assert site.transports()[0].get_write_buffer_size() < 1_000_000
        assert site.decode[0].running == 1, "the engine waits for the client"

        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        total, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            chunk = await asyncio.wait_for(reader.read(1 << 20), 10)
            assert chunk, "the connection ended before the stream did"
            total, end = total + len(chunk), (end + chunk)[-7:]
        assert total > 799 * 60_000
    assert (await site.recorded()).outcome == "ok"
    assert (await site.complete()).status_code == 200, "the engine's connection reads on for the next request"
    assert site.decode[0].connections == 1


async def test_a_reader_that_stalls_is_cut_off(make_site: MakeSite) -> None:
    site = await make_site(stall_s=0.3)
    site.decode[0].act.padding = 60_000
    async with slow_client(site.port) as (_, writer):
        await ask_for_a_stream(writer, tokens=800)
        assert (await site.recorded()).outcome == "cancelled"
        await eventually(lambda: site.decode[0].running == 0)


async def test_a_reader_that_stalls_on_a_whole_answer_is_cut_off(make_site: MakeSite) -> None:
    site = await make_site(stall_s=0.5)
    site.decode[0].act.padding = 12_000_000
    async with slow_client(site.port) as (_, writer):
        await ask_for_a_stream(writer, tokens=1, stream=False)
        await eventually(site.trips)
        await eventually(lambda: not site.transports())


async def test_a_connection_the_engine_closed_meanwhile_costs_a_retry_not_trust(make_site: MakeSite) -> None:
    """The engine answers, then closes without having said so: the next request meets a dead connection."""
    site = await make_site(prefill=0)
    site.decode[0].act.close = True
    for _ in range(6):
        assert (await site.complete()).status_code == 200
    assert not site.gateway.engines._suspects(site.table)


def rewire(site: Site, engine: int, port: int) -> None:
    moved = Engine.at(engine, "node/moved", f"http://127.0.0.1:{port}", "key")
    assert moved is not None
    site.table.engines[engine] = moved


async def ask_for_a_stream(writer: asyncio.StreamWriter, tokens: int, *, stream: bool = True) -> None:
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": tokens, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


@contextlib.asynccontextmanager
async def slow_client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client whose side takes in little that nobody reads."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=one, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
