"""Passes an engine's stream on to the client, from the engine's callback straight to the client's transport.

No task runs per token. When the client reads too slowly, reading from the engine pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp.abc import AbstractStreamWriter

from controlplane.gateway.sse import Events, StreamError
from controlplane.gateway.trip import Trip
from controlplane.gateway.upstream import Exchange

HIGH_WATER = 65_536  # the transport's own mark, past which it asks its protocol to wait


class Relay:
    """A sink for an Exchange. Until `go` the pieces are kept; `started` is done at the first of them."""

    def __init__(self, trip: Trip, exchange: Exchange, *, strip_usage: bool, stall_s: float) -> None:
        self.events = Events(strip_usage=strip_usage)
        self.broken = ""
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self._trip, self._exchange, self._stall_s = trip, exchange, stall_s
        self._kept: list[bytes] = []
        self._write: Callable[[bytes], None] | None = None
        self._draining: asyncio.Task[None] | None = None

    def __call__(self, piece: bytes) -> None:
        """Take a piece that is to be looked through; until `go` that is every piece."""
        try:
            piece = self.events.feed(piece)
        except StreamError as error:
            self.broken = str(error)
            self._exchange.abort(self.broken)
            return
        # Plain events are not timed one by one: the last piece, which ends the stream, always comes here.
        self._trip.last = self._loop.time()
        if self.events.count and not self._trip.first:
            self._trip.first = self._trip.last
        if not piece:
            return
        self.say(piece)
        if not self.started.done():
            self.started.set_result(None)

    def say(self, piece: bytes) -> None:
        """Pass `piece` on, or keep it until `go`."""
        if self._write is not None:
            self._write(piece)
        else:
            self._kept.append(piece)

    def go(self, transport: asyncio.Transport, writer: AbstractStreamWriter, *, chunked: bool) -> None:
        """From now on write to `transport` as pieces come. The response's head must have been sent."""
        put, unsent, is_plain = transport.write, transport.get_write_buffer_size, self.events.is_plain

        def write(piece: bytes) -> None:
            put(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if unsent() > HIGH_WATER:
                self._hold(transport, writer)

        def sink(piece: bytes) -> None:  # runs once a token: as flat as can be
            if not is_plain(piece):
                self(piece)
                return
            put(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if unsent() > HIGH_WATER:
                self._hold(transport, writer)

        self._write = write
        kept, self._kept = self._kept, []
        if kept:
            write(b"".join(kept))
        self._exchange.attach(sink)

    async def drained(self) -> None:
        """Wait until the client has read up to the transport's mark."""
        if self._draining is not None:
            await asyncio.wait([self._draining])

    def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()

    def _hold(self, transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
        """Let the engine wait until the client has read."""
        if self._draining is None:
            self._exchange.pause()
            self._draining = self._loop.create_task(self._drain(transport, writer))

    async def _drain(self, transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await writer.drain()
        except TimeoutError:
            transport.abort()  # to the server this is a client that hung up
        finally:
            self._draining = None
            self._exchange.resume()
