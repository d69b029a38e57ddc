"""Passes an engine's stream on to the client, from the engine's callback straight to the client's transport.

No task runs per token. When the client reads too slowly, reading from the engine pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.gateway.exchange import Exchange
from controlplane.gateway.frame import Frame
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
        events, exchange, chunked = self.events, self._exchange, outlet.chunked
        known: Frame | None = None

        def write(piece: bytes) -> None:
            put(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if unsent() > HIGH_WATER:
                self._hold(outlet)

        def sink(piece: bytes) -> None:  # runs once a token, where `_whole_chunks` cannot be used
            nonlocal known
            said = events.plain(piece)
            if said is None:
                exchange.whole_chunks = known = None  # until a plain one has come again
                self(piece)
                return
            if chunked and events.frame is not known:
                known = events.frame
                exchange.whole_chunks = known and self._whole_chunks(known, outlet)
            write(said)

        self._write = write
        kept, self._kept = self._kept, []
        if kept:
            write(b"".join(kept))
        exchange.attach(sink)

    def _whole_chunks(self, frame: Frame, outlet: Outlet) -> Callable[[bytes], bool]:
        """What passes on chunks of plain events as the network brings them; it tells whether they were such."""
        put, unsent = outlet.transport.write, outlet.transport.get_write_buffer_size
        one, several, shows_ids = frame.chunk_without_ids, frame.chunks_without_ids, self.events.shows_ids
        events, transcript = self.events, self.events.transcript
        assert transcript is not None  # a frame comes of one
        keep = transcript.keep

        def take(data: bytes) -> bool:  # runs once a token: as flat as can be
            said = one(data)
            if said is not None:
                events.count += 1
            elif told := several(data):  # who is late gets several at once
                events.count += len(told)
                said = b"".join(told)
            else:
                return False
            keep(data)
            put(data if shows_ids else said)
            if unsent() > HIGH_WATER:
                self._hold(outlet)
            return True

        return take

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
