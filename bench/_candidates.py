"""Bare two-step proxies, one per pair of libraries: what the libraries alone cost, before any feature of ours.

python bench/_candidates.py NAME --prefill PORT.. --decode PORT.. --key KEY
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from itertools import cycle
from pathlib import Path

import aiohttp
import httptools
import httpx
import msgspec
import uvicorn
import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from controlplane.gateway.upstream import Pool

PATH = "/v1/completions"
ASK = {"do_remote_decode": True, "do_remote_prefill": False}


def bodies(raw: bytes) -> tuple[dict, dict]:
    body = msgspec.json.decode(raw)
    prefill = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
    return body, {**prefill, "max_tokens": 1, "kv_transfer_params": ASK}


class Aiohttp:
    """aiohttp on both sides."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.p, self.d = (
            cycle([f"http://127.0.0.1:{port}{PATH}" for port in ports]) for ports in (options.prefill, options.decode)
        )
        self.headers = {"authorization": f"Bearer {options.key}", "content-type": "application/json"}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body, prefill = bodies(await request.read())
        async with self.session.post(next(self.p), data=msgspec.json.encode(prefill), headers=self.headers) as reply:
            body["kv_transfer_params"] = msgspec.json.decode(await reply.read())["kv_transfer_params"]
        async with self.session.post(next(self.d), data=msgspec.json.encode(body), headers=self.headers) as reply:
            if not body.get("stream"):
                return web.Response(body=await reply.read(), content_type="application/json")
            answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await answer.prepare(request)
            async for chunk in reply.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    async def serve(self) -> int:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(web.Server(self.handle, access_log=None), "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]


class AiohttpLean(Aiohttp):
    """aiohttp towards the client, our upstream client towards the engines."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.ports, self.key = (options.prefill, options.decode), options.key

    def head(self, body: dict) -> bytes:
        raw = msgspec.json.encode(body)
        return (
            f"POST {PATH} HTTP/1.1\r\nhost: e\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
        ).encode() + raw

    async def two_step(self, raw: bytes) -> tuple[dict, object]:
        body, prefill = bodies(raw)
        first = await next(self.p).send(self.head(prefill))
        await first.done
        body["kv_transfer_params"] = msgspec.json.decode(first.body)["kv_transfer_params"]
        return body, await next(self.d).send(self.head(body))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body, second = await self.two_step(await request.read())
        if not body.get("stream"):
            await second.done
            return web.Response(body=second.body, content_type="application/json")
        await second.head
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        pieces: asyncio.Queue = asyncio.Queue()
        second.attach(pieces.put_nowait)
        second.done.add_done_callback(lambda _: pieces.put_nowait(b""))
        while piece := await pieces.get():
            await answer.write(piece)
        await answer.write_eof()
        return answer

    async def serve(self) -> int:
        self.p, self.d = (cycle([Pool("127.0.0.1", port) for port in ports]) for ports in self.ports)
        return await super().serve()


class AiohttpLeanThrough(AiohttpLean):
    """The same, but stream pieces go straight from the engine's callback to the client's transport."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body, second = await self.two_step(await request.read())
        if not body.get("stream"):
            await second.done
            return web.Response(body=second.body, content_type="application/json")
        await second.head
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        answer.enable_chunked_encoding()
        writer = await answer.prepare(request)
        writer.send_headers()
        write = request.transport.write
        second.attach(lambda piece: write(b"%x\r\n%b\r\n" % (len(piece), piece)))
        await second.done
        await answer.write_eof()
        return answer


class Lean(AiohttpLean):
    """asyncio protocols on httptools on both sides."""

    async def serve(self) -> int:
        self.p, self.d = (cycle([Pool("127.0.0.1", port) for port in ports]) for ports in self.ports)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Face(self, loop), "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]


class _Face(asyncio.Protocol):
    def __init__(self, proxy: Lean, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy, self.loop, self.parser, self.body = proxy, loop, httptools.HttpRequestParser(self), b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        name.lower()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        raw, self.body = self.body, b""
        self.task = self.loop.create_task(self.answer(raw))

    async def answer(self, raw: bytes) -> None:
        body, second = await self.proxy.two_step(raw)
        write = self.transport.write
        if not body.get("stream"):
            await second.done
            answer = second.body
            write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
                + answer
            )
            return
        await second.head
        write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        second.attach(lambda piece: write(b"%x\r\n%b\r\n" % (len(piece), piece)))
        await second.done
        write(b"0\r\n\r\n")


class UvicornHttpx:
    """uvicorn (httptools, uvloop) and httpx."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.p, self.d = (
            cycle([f"http://127.0.0.1:{port}{PATH}" for port in ports]) for ports in (options.prefill, options.decode)
        )
        self.headers = {"authorization": f"Bearer {options.key}", "content-type": "application/json"}

    async def __call__(self, scope: dict, receive: object, send: object) -> None:
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        body, prefill = bodies(raw)
        reply = await self.session.post(next(self.p), content=msgspec.json.encode(prefill), headers=self.headers)
        body["kv_transfer_params"] = msgspec.json.decode(reply.content)["kv_transfer_params"]
        async with self.session.stream(
            "POST", next(self.d), content=msgspec.json.encode(body), headers=self.headers
        ) as reply:
            kind = reply.headers["content-type"].encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            async for piece in reply.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def serve(self) -> int:
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        self.session = httpx.AsyncClient(limits=limits, timeout=60)
        server = uvicorn.Server(uvicorn.Config(self, port=0, lifespan="off", access_log=False, log_level="warning"))
        self.task = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        return server.servers[0].sockets[0].getsockname()[1]


ALL = {
    "aiohttp": Aiohttp,
    "aiohttp+lean": AiohttpLean,
    "aiohttp+lean through": AiohttpLeanThrough,
    "lean": Lean,
    "uvicorn+httpx": UvicornHttpx,
}


async def main(options: argparse.Namespace) -> None:
    print(await ALL[options.name](options).serve(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("name", choices=ALL)
    flags.add_argument("--prefill", type=int, nargs="+", required=True)
    flags.add_argument("--decode", type=int, nargs="+", required=True)
    flags.add_argument("--key", default="")
    uvloop.run(main(flags.parse_args()))
