"""The client's side of one stream: opened when an engine's first event is there, whatever engine speaks behind it; or
earlier, where the client is to hear that its model is being woken."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11


class Outlet:
    transport: asyncio.Transport
    writer: AbstractStreamWriter

    def __init__(self, request: web.BaseRequest) -> None:
        self.chunked = request.version >= HttpVersion11
        self.response: web.StreamResponse | None = None
        self.spoken = False  # an engine has
        self._request = request

    async def open(self, headers: dict[str, str]) -> None:
        """Send the response's head."""
        response = web.StreamResponse(headers={**headers, "cache-control": "no-cache"})
        if self.chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        writer = await response.prepare(self._request)
        transport = self._request.transport
        if transport is None or writer is None:
            raise ConnectionResetError("the client hung up")
        writer.send_headers()
        self.response, self.transport, self.writer = response, transport, writer

    def write(self, piece: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    async def murmur(self, headers: dict[str, str]) -> None:
        """Say nothing but that somebody is there: a comment, which clients pass over. Opens the stream."""
        if self.response is None:
            await self.open(headers)
        self.write(b": waking\n\n")

    async def close(self) -> web.StreamResponse:
        """End the response."""
        assert self.response is not None
        await self.response.write_eof()
        return self.response
