"""One request to an engine and its answer, as whoever asked sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.gateway.upstream import Connection

Sink = Callable[[bytes], None]
Take = Callable[[bytes], bool]


class UpstreamError(Exception):
    """The exchange with an engine failed. `answered`: some of its answer had arrived. `stale`: an idle
    connection turned out closed, which says nothing about the engine's health."""

    def __init__(self, message: str, *, answered: bool = False, stale: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.stale = stale


class Exchange:
    """One request and its answer. Await `head`, then `attach` a sink, then await `done`; or await `done` only
    and read `body`."""

    __slots__ = (
        "_limit", "_paused", "_pieces", "_size", "_timer",
        "connection", "content_type", "done", "head", "heard", "sink", "status", "whole_chunks",
    )  # fmt: skip

    def __init__(self, connection: Connection, limit: int) -> None:
        self.connection: Connection | None = connection
        self.status = 0
        self.content_type = b""
        loop = connection.loop
        self.head: asyncio.Future[int] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self._pieces: list[bytes] = []
        self.sink: Sink | None = None
        self.whole_chunks: Take | None = None
        self._size = 0
        self._limit = limit
        self.heard = 0.0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def body(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def attach(self, sink: Sink) -> None:
        """Hand what came so far, and all that comes, to `sink` as it comes. `whole_chunks`, where it is set, is shown
        what the network brings between two chunks, and may take it, if it is nothing but whole chunks: that saves the
        parser's work."""
        self.sink = sink
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            sink(piece)

    def deadline(self, seconds: float, reason: str) -> None:
        """Fail the exchange `seconds` from now; replaces the deadline before."""
        if self._timer is not None:
            self._timer.cancel()
        if self.connection is not None:
            self._timer = self.connection.loop.call_later(seconds, self.abort, reason)

    def watch(self, seconds: float) -> None:
        """Fail the exchange once the engine has been silent for so long; replaces the deadline before."""
        connection = self.connection
        if connection is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.heard = connection.loop.time()
        self._timer = connection.loop.call_later(seconds, self._listen, connection.loop, seconds)

    def abort(self, reason: str = "given up") -> None:
        """Close the connection: the engine sees that nobody waits and stops working on it."""
        connection = self.connection
        if connection is not None:
            self.fail(UpstreamError(reason, answered=self.status != 0))
            connection.transport.abort()

    def pause(self) -> None:
        """Let the engine wait until `resume`."""
        if self.connection is not None and not self._paused:
            self._paused = True
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        if self.connection is not None and self._paused:
            self._paused = False
            self.connection.transport.resume_reading()

    def keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self.abort("the answer is too large")
            return
        self._pieces.append(data)

    def begin(self, status: int) -> None:
        self.status = status
        if not self.head.done():
            self.head.set_result(status)

    def finish(self) -> None:
        self._release()
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: UpstreamError) -> None:
        self._release()
        for future in (self.head, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits it gets it; nobody may be left to

    def _listen(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """`heard` is zeroed by each piece, for that is cheaper than reading the clock."""
        now = loop.time()
        if self.heard and now - self.heard >= seconds:
            self.abort("the engine fell silent")
            return
        self.heard = self.heard or now
        self._timer = loop.call_later(seconds - (now - self.heard), self._listen, loop, seconds)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.connection = None
