"""The HTTP/1.1 client towards the engines: keep-alive connections, each used for one exchange at a time.

Small and strict on purpose; docs/adr/0006 says why it is not a library. What an engine sends is bounded:
heads, whole answers and the time they take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import httptools

from controlplane.gateway.exchange import Exchange, UpstreamError
from controlplane.gateway.moderation import Moderation


@dataclass(frozen=True, slots=True)
class Bounds:
    connect_s: float = 2.0
    idle_s: float = 3.0  # engines close idle connections after 5 s; leave before they do
    max_idle: int = 128
    head_bytes: int = 32_768
    head_count: int = 100
    answer_bytes: int = 16 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One connection and its parser. Anything unexpected on it ends it."""

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = pool.loop
        self.exchange: Exchange | None = None
        self.uses = 0
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._is_between = False  # two chunks of a body
        self._quiet = 0  # bytes since the last piece of a body: a head or trailers without end
        self._head_count = 0

    def send(self, request: bytes) -> Exchange:
        self.uses += 1
        self._quiet = self._head_count = 0
        self._is_between = False
        self.exchange = exchange = Exchange(self, self.pool.bounds.answer_bytes)
        self.transport.write(request)
        return exchange

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.transport.abort()
            return
        if self._is_between and exchange.whole_chunks is not None and exchange.whole_chunks(data):
            exchange.heard = 0.0
            if (moderation := self.pool.moderation) is not None:
                moderation.passed_on()
            return
        if self._quiet > self.pool.bounds.head_bytes:
            exchange.abort("the head of the answer is too large")
            return
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
            self._is_between = self._is_between and data.endswith(b"\r\n")  # else the next one has begun
        except httptools.HttpParserError as error:
            exchange.abort(f"the answer is no HTTP: {error}")
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.pool.forget(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None and exchange.connection is self:
            answered = exchange.status != 0
            message = "the engine closed the connection" + (f": {error}" if error else "")
            exchange.fail(UpstreamError(message, answered=answered, stale=self.uses > 1 and not answered))

    # httptools' side

    def on_message_begin(self) -> None:
        if self.exchange is None:  # a second answer to one question
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += 1
        if self._head_count > self.pool.bounds.head_count and self.exchange is not None:
            self.exchange.abort("too many headers in the answer")
        elif len(name) == 12 and name.lower() == b"content-type" and self.exchange is not None:
            self.exchange.content_type = value

    def on_headers_complete(self) -> None:
        if self.exchange is not None:
            status = self._parser.get_status_code()
            if status >= 200:  # an informational answer is followed by the real one
                self.exchange.begin(status)

    def on_body(self, data: bytes) -> None:
        self._quiet = 0
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.sink is None:
            exchange.keep(data)
        else:
            exchange.heard = 0.0
            exchange.sink(data)

    def on_chunk_header(self) -> None:
        self._is_between = False

    def on_chunk_complete(self) -> None:
        self._is_between = True

    def on_message_complete(self) -> None:
        self._is_between = False
        exchange = self.exchange
        if exchange is None or not exchange.status:
            return
        self.exchange = None
        aborted = exchange.connection is None
        if aborted or not self._parser.should_keep_alive():
            self.transport.close()
        else:
            exchange.resume()  # a paused connection would leave its next exchange waiting for ever
            self.pool.put_back(self)
        if not aborted:
            exchange.finish()


class Pool:
    """The connections to one engine."""

    def __init__(self, host: str, port: int, bounds: Bounds = Bounds(), moderation: Moderation | None = None) -> None:
        self.host, self.port, self.bounds, self.moderation = host, port, bounds, moderation
        self.loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()
        self._closed = False

    async def send(self, request: bytes, *, not_after: float | None = None) -> Exchange:
        """Write `request` on an idle connection or a new one, but not after that moment of the loop's clock.
        Nothing is ever sent twice from here."""
        connection = self._take_idle()
        if connection is None:
            connection = await self._connect(not_after)
        if not_after is not None and self.loop.time() > not_after:
            self.put_back(connection)
            raise UpstreamError("too late")
        return connection.send(request)

    def put_back(self, connection: Connection) -> None:
        connection.idle_since = self.loop.time()
        if self._closed or len(self._idle) >= self.bounds.max_idle:
            connection.transport.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what lay idle too long."""
        while self._idle and self.loop.time() - self._idle[0].idle_since > self.bounds.idle_s:
            self._idle.popleft().transport.close()

    def close(self) -> None:
        """Close the idle connections; the others close when their exchange ends."""
        self._closed = True
        self.flush()

    def flush(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().transport.close()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last is the likeliest to be alive
            if not connection.transport.is_closing() and self.loop.time() - connection.idle_since <= self.bounds.idle_s:
                return connection
            connection.transport.close()
        return None

    async def _connect(self, not_after: float | None) -> Connection:
        until = self.loop.time() + self.bounds.connect_s
        try:
            async with asyncio.timeout_at(until if not_after is None else min(until, not_after)):
                _, connection = await self.loop.create_connection(lambda: Connection(self), self.host, self.port)
        except TimeoutError as error:
            raise UpstreamError("no connection in time") from error
        except OSError as error:
            raise UpstreamError(f"no connection: {error.strerror or error}") from error
        return connection
