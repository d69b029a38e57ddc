"""Passes an engine's stream on to the client, from the engine's callback straight to the client's transport.

No task runs per token. When the client reads too slowly, reading from the engine pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.gateway.exchange import Exchange
from controlplane.gateway.outlet import Outlet
from controlplane.gateway.splice import Splice
from controlplane.gateway.sse import Events, StreamError
from controlplane.gateway.trip import Trip

HIGH_WATER = 65_536  # the transport's own mark, past which it asks its protocol to wait


class Relay:
    """A sink for an Exchange. Until `go` the pieces are kept; `started` is done at the first of them."""

    def __init__(self, trip: Trip, exchange: Exchange, events: Events | Splice, *, stall_s: float) -> None:
        self.events = events
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
            if self.events.transcript is not None:
                self.events.transcript.lost = True  # what came with it was noted, and not passed on
            self._exchange.abort(self.broken)
            return
        # Plain events are not timed one by one: the last piece, which ends the stream, always comes here.
        self._trip.last = self._loop.time()
        if self.events.count and not self._trip.first:
            self._trip.first = self._trip.last
        if piece:
            self.say(piece)
        if not self.started.done() and (piece or self.events.begun or self.events.error):
            self.started.set_result(None)

    def say(self, piece: bytes) -> None:
        """Pass `piece` on, or keep it until `go`."""
        if self._write is not None:
            self._write(piece)
        else:
            self._kept.append(piece)

    def go(self, outlet: Outlet) -> None:
        """From now on write to the client as pieces come. The outlet must be open."""
        put, unsent = outlet.transport.write, outlet.transport.get_write_buffer_size
        plain, plain_chunk, chunked = self.events.plain, self.events.plain_chunk, outlet.chunked

        def write(piece: bytes) -> None:
            put(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if unsent() > HIGH_WATER:
                self._hold(outlet)

        def sink(piece: bytes) -> None:  # runs once a token: as flat as can be
            said = plain(piece)
            if said is None:
                self(piece)
                return
            put(b"%x\r\n%b\r\n" % (len(said), said) if chunked else said)
            if unsent() > HIGH_WATER:
                self._hold(outlet)

        def whole_chunks(data: bytes) -> bool:
            said = plain_chunk(data)
            if said is None:
                return False
            put(said)
            if unsent() > HIGH_WATER:
                self._hold(outlet)
            return True

        self._write = write
        kept, self._kept = self._kept, []
        if kept:
            write(b"".join(kept))
        self._exchange.attach(sink, whole_chunks if chunked else None)

    async def drained(self) -> None:
        """Wait until the client has read up to the transport's mark."""
        if self._draining is not None:
            await asyncio.wait([self._draining])

    def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()

    def _hold(self, outlet: Outlet) -> None:
        """Let the engine wait until the client has read."""
        if self._draining is None:
            self._exchange.pause()
            self._draining = self._loop.create_task(self._drain(outlet))

    async def _drain(self, outlet: Outlet) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await outlet.writer.drain()
        except TimeoutError:
            outlet.transport.abort()  # to the server this is a client that hung up
        finally:
            self._draining = None
            self._exchange.resume()
