"""A report that is answered past ASGI, over real sockets, and whatever is not."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from controlplane.wire import DOOR, Wire

REPORT = b"POST /agent/v1/report HTTP/1.1\r\nhost: x\r\nAuthorization: Bearer one\r\ncontent-length: %d\r\n%b\r\n%b"


@dataclass
class Door:
    """Answers what begins with `known` at once, and is the application for the rest."""

    path: bytes = b"/agent/v1/report"
    most_bytes: int = 1000
    at_once_of: list[tuple[bytes, str]] = field(default_factory=list)
    long: list[tuple[str, bytes]] = field(default_factory=list)

    def at_once(self, body: bytes, authorization: str) -> bytes | None:
        self.at_once_of.append((body, authorization))
        if body == b"broken":
            raise ValueError("a fault of ours")
        return b'{"at":1}' if body.startswith(b"known") else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"][DOOR] = self
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.long.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"long"})


@dataclass
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.02)

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        status, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, body


@asynccontextmanager
async def served(door: Door, **options: Any) -> AsyncIterator[tuple[uvicorn.Server, Line]]:
    config = uvicorn.Config(door, http=Wire, lifespan="on", log_config=None, timeout_graceful_shutdown=5, **options)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    line = Line(*await asyncio.open_connection(*listener.getsockname()))
    try:
        yield server, line
    finally:
        line.writer.close()
        server.should_exit = True
        await asyncio.wait_for(serving, 10)


def report(body: bytes, *headers: bytes) -> bytes:
    return REPORT % (len(body), b"".join(header + b"\r\n" for header in headers), body)


async def test_a_report_is_answered_at_once_again_and_again_on_one_connection() -> None:
    async with served(door := Door()) as (server, line):
        for _ in range(3):
            await line.say(report(b"known"))
            status, headers, body = await line.hear()
            assert (status, headers["content-type"], body) == (200, "application/json", b'{"at":1}')
            assert "date" in headers
        assert server.server_state.total_requests == 3
    assert door.at_once_of == [(b"known", "Bearer one")] * 3
    assert door.long == []


async def test_a_report_that_takes_longer_reaches_the_application_whole() -> None:
    async with served(door := Door()) as (_, line):
        whole = report(b"news of a node")
        await line.say(whole[:40], whole[40:-5], whole[-5:])
        assert (await line.hear())[::2] == (202, b"long")
        await line.say(report(b"known"))
        assert (await line.hear())[0] == 200
    assert door.long == [("/agent/v1/report", b"news of a node")]


@pytest.mark.parametrize(
    "request_of_it",
    [
        report(b"known", b"connection: close"),
        report(b"known").replace(b"HTTP/1.1", b"HTTP/1.0"),
        report(b"known").replace(b"POST", b"PUT"),
        report(b"known").replace(b"/report", b"/report?a=b"),
        report(b"known").replace(b"/report", b"/other"),
        report(b"known" * 1000),
    ],
    ids=["closes", "old", "put", "query", "elsewhere", "too large"],
)
async def test_what_is_no_plain_report_goes_to_the_application(request_of_it: bytes) -> None:
    async with served(door := Door()) as (_, line):
        await line.say(request_of_it)
        assert (await line.hear())[0] == 202
    assert door.at_once_of == []
    assert door.long[0][1].startswith(b"known")


async def test_whoever_waits_to_be_told_to_go_on_is_told() -> None:
    async with served(door := Door()) as (_, line):
        head, body = report(b"known", b"expect: 100-continue").split(b"\r\n\r\n")
        await line.say(head + b"\r\n\r\n")
        assert (await line.hear())[0] == 100
        await line.say(body)
        assert (await line.hear())[0] == 202
    assert door.long == [("/agent/v1/report", b"known")]


async def test_requests_sent_without_waiting_are_answered_in_their_order() -> None:
    async with served(door := Door()) as (_, line):
        await line.say(report(b"known") + report(b"news") + report(b"known") + report(b"known"))
        assert [(await line.hear())[0] for _ in range(4)] == [200, 202, 202, 202]
    assert [body for _, body in door.long] == [b"news", b"known", b"known"]


async def test_a_chunked_report_is_answered_too() -> None:
    async with served(Door()) as (_, line):
        head = REPORT.split(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
        await line.say(head, b"3\r\nkno\r\n", b"2\r\nwn\r\n0\r\n\r\n")
        assert (await line.hear())[0] == 200


async def test_a_fault_in_answering_at_once_is_logged_and_the_application_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(door := Door()) as (_, line):
        await line.say(report(b"broken"))
        assert (await line.hear())[0] == 202
    assert door.long == [("/agent/v1/report", b"broken")]
    assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [logging.ERROR]


async def test_half_a_report_is_waited_for_when_the_server_stops() -> None:
    async with served(door := Door()) as (server, line):
        whole = report(b"known")
        await line.say(whole[:-2])
        server.should_exit = True
        await asyncio.sleep(0.3)
        await line.say(whole[-2:])
        status, headers, _ = await line.hear()
        assert (status, headers["connection"]) == (202, "close")
    assert door.long == [("/agent/v1/report", b"known")]


async def test_a_connection_that_says_nothing_more_is_closed() -> None:
    async with served(Door(), timeout_keep_alive=1) as (_, line):
        await line.say(report(b"known"))
        assert (await line.hear())[0] == 200
        assert await asyncio.wait_for(line.reader.read(), 5) == b""
