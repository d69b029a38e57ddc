"""One attempt to serve a request on one route: prefill, hand the KV over, answer. Stream or whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import structlog
from aiohttp import web

from controlplane.domain.routing import Path, Route
from controlplane.gateway.avoiding import Avoided
from controlplane.gateway.engines import Engines
from controlplane.gateway.exchange import Exchange, UpstreamError
from controlplane.gateway.failures import EngineFailed, StreamBroke, raise_for
from controlplane.gateway.limits import Limits
from controlplane.gateway.openai import Ask, Kind, Usage
from controlplane.gateway.outlet import Outlet
from controlplane.gateway.relay import Relay
from controlplane.gateway.splice import Splice
from controlplane.gateway.sse import Events, error_status
from controlplane.gateway.table import Engine, Table
from controlplane.gateway.trip import STREAM, Outcome, Trip

log = structlog.get_logger(__name__)
LATE = "the KV deadline passed"
HEADS = {
    Kind.CHAT: b"POST /v1/chat/completions HTTP/1.1\r\n",
    Kind.COMPLETION: b"POST /v1/completions HTTP/1.1\r\n",
}


class _Prefilled(msgspec.Struct):
    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"null")
    usage: Usage | None = None


class _Answer(msgspec.Struct):
    usage: Usage | None = None


_prefilled = msgspec.json.Decoder(_Prefilled)
_answer = msgspec.json.Decoder(_Answer)


@dataclass(slots=True)
class Streaming:
    """Where a stream goes, and through what. With a Splice it goes on after what other engines have said."""

    outlet: Outlet
    events: Events | Splice

    @property
    def goes_on(self) -> bool:
        return self.outlet.spoken


class Attempt:
    """Used once. Fails with EngineFailed as long as the client has got nothing from this engine, and with StreamBroke
    after that."""

    __slots__ = (
        "_ask", "_avoided", "_engine", "_engines", "_latest", "_lent", "_limits", "_loop", "_params", "_prefill",
        "_prefilled", "_streaming", "_trip",
    )  # fmt: skip

    def __init__(
        self,
        trip: Trip,
        ask: Ask,
        route: Route,
        *,
        table: Table,
        latest: Callable[[], Table],
        engines: Engines,
        limits: Limits,
        avoided: Avoided,
        streaming: Streaming | None = None,
    ) -> None:
        self._engines, self._limits, self._trip, self._ask = engines, limits, trip, ask
        self._latest, self._avoided = latest, avoided
        self._loop = asyncio.get_running_loop()
        self._engine = table.engines[route.engine]
        self._prefill = table.engines[route.prefill] if route.prefill is not None else None
        self._lent = trip.deployment if route.path is Path.OVERFLOW else ""  # whose slot of the pool serves it
        self._params: msgspec.Raw | None = None
        self._prefilled = 0.0
        self._streaming = streaming
        if not self._goes_on:
            trip.path, trip.decode = route.path, self._engine.name
            trip.prefill = self._prefill.name if self._prefill else ""
            trip.prefilled = trip.first = trip.last = 0.0

    @property
    def _goes_on(self) -> bool:
        """Whether this is not the first engine that speaks to the client."""
        return self._streaming is not None and self._streaming.goes_on

    async def run(self) -> web.StreamResponse:
        load, lent = self._engines.load, self._lent
        load[self._engine.id] += 1
        if lent:
            self._engines.lent.begin(lent, time.time())
        try:
            if self._ask.to_context:
                await self._ask_to_context()
            if self._prefill is not None:
                self._params = await self._run_prefill(self._prefill)
                if self._params is None and not self._goes_on:  # the engine had nothing to hand over
                    self._trip.path = Path.DIRECT
                self._look_again(self._prefill)
            return await (self._whole() if self._streaming is None else self._stream(self._streaming))
        finally:
            if lent:
                self._engines.lent.end(lent, time.time())
            self._engines.release(self._engine.id)

    async def _ask_to_context(self) -> None:
        context = await self._engines.context(self._engine, self._limits.health_s)
        if context is None:
            raise EngineFailed(self._engine, "it did not tell its model's context", self._engine)
        fields = {**self._ask.fields, "max_tokens": msgspec.Raw(b"%d" % context)}  # it takes the prompt off itself
        self._ask = replace(self._ask, fields=fields, to_context=False)

    def _look_again(self, prefill: Engine) -> None:
        """A prefill may take long, and an idle decode engine be given another role or none meanwhile."""
        table, chosen = self._latest(), self._engine
        served = table.served.get(self._trip.deployment)
        id: int | None = chosen.id
        if served is None or id not in served.ready.decode:
            # not the prefill engine, should it decode now: it would have to pull from itself
            failed = {*self._avoided.ids(table), prefill.id}
            id = served and self._engines.decode(table, served, prefix=self._ask.prefix(), failed=failed)
        if id is None:
            raise EngineFailed(chosen, "it left during the prefill", suspect=False)
        load = self._engines.load
        load[id] += 1
        self._engines.release(chosen.id)
        self._engine = table.engines[id]  # as it is now: it may have restarted
        if not self._goes_on:
            self._trip.decode = self._engine.name

    async def _run_prefill(self, engine: Engine) -> msgspec.Raw | None:
        load = self._engines.load
        load[engine.id] += 1
        began = self._loop.time()
        try:
            exchange = await self._send(engine, self._ask.for_prefill(), "p")
            exchange.deadline(self._limits.prefill_s, "no answer to the prefill in time")
            await self._finish(exchange, engine)
        finally:
            self._engines.release(engine.id)
        self._prefilled = self._loop.time()
        try:
            answer = _prefilled.decode(exchange.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EngineFailed(engine, f"its prefill's answer cannot be read: {error}", engine) from error
        if not self._goes_on:
            self._trip.prefill_began, self._trip.prefilled = began, self._prefilled
            self._trip.take_usage(answer.usage)
            self._trip.completion_tokens = None
        params = answer.kv_transfer_params
        return params if memoryview(params)[:1] == b"{" else None

    async def _whole(self) -> web.Response:
        trip = self._trip
        exchange = await self._hand_over()
        exchange.deadline(self._limits.answer_s, "no answer in time")
        check = self._params and self._loop.call_later(self._left_s(), self._check, exchange)
        try:
            await self._finish(exchange, self._engine)
        finally:
            if check:
                check.cancel()
        body = exchange.body
        try:
            trip.take_usage(_answer.decode(body).usage)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EngineFailed(self._engine, f"its answer cannot be read: {error}", self._engine) from error
        trip.outcome, trip.status, trip.error = Outcome.OK, 200, ""
        return web.Response(body=body, headers=trip.headers(self._loop.time(), "application/json"))

    async def _stream(self, streaming: Streaming) -> web.StreamResponse:
        exchange = await self._hand_over()
        relay = Relay(self._trip, exchange, streaming.events, stall_s=self._limits.stall_s)
        try:
            await self._begin(exchange, relay)
            await self._pass_on(exchange, relay, streaming.outlet)
        finally:
            relay.stop()
            if not relay.events.done:  # until now if the client hung up; if the engine did, nobody knows
                self._trip.last = self._loop.time() if exchange.connection is not None else 0.0
            exchange.abort()
            self._trip.events += relay.events.count
            self._trip.take_usage(relay.events.usage)
        return await streaming.outlet.close()

    async def _begin(self, exchange: Exchange, relay: Relay) -> None:
        """Wait for the first event; until then the request can go elsewhere."""
        limits, engine = self._limits, self._engine
        if self._params is None:
            exchange.deadline(limits.head_s, "it did not begin its stream in time")
        else:  # an engine that took the request renews the lease of its blocks itself: docs/adr/0006
            exchange.deadline(self._left_s(), LATE)
        try:
            await exchange.head
        except UpstreamError as error:
            raise self._failure(engine, error) from error
        if exchange.status != 200 or not exchange.content_type.startswith(b"text/event-stream"):
            exchange.deadline(limits.head_s, "it did not finish its answer in time")
            await self._finish(exchange, engine)
            raise EngineFailed(engine, "it answered with no stream", engine)
        exchange.deadline(limits.first_s, "its first event did not come in time")
        exchange.attach(relay)
        await asyncio.wait((relay.started, exchange.done), return_when=asyncio.FIRST_COMPLETED)
        if not relay.started.done():
            raise EngineFailed(engine, relay.broken or "its stream ended before its first event", engine)
        if relay.events.error and not relay.events.begun:
            raise_for(engine, self._prefill, error_status(relay.events.error), relay.events.error)
        self._engines.trust(engine)
        exchange.watch(limits.silence_s)

    async def _pass_on(self, exchange: Exchange, relay: Relay, outlet: Outlet) -> None:
        trip = self._trip
        if not outlet.spoken:
            trip.status = 200
            if outlet.response is None:
                await outlet.open(trip.headers(self._loop.time(), STREAM))
            outlet.spoken = True
        else:
            trip.go_on(self._engine.name)
            outlet.write(b": continued on %b\n\n" % self._engine.name.encode())
        relay.go(outlet)
        why = await self._ended(exchange, relay)
        await relay.drained()
        if why:
            raise StreamBroke(self._engine, why, relay.events.error)
        trip.outcome, trip.error = Outcome.OK, ""

    async def _ended(self, exchange: Exchange, relay: Relay) -> str:
        """Wait for the end of the stream; why it is not a good one."""
        why = "its stream ended early"
        try:
            await exchange.done
        except UpstreamError as error:
            why = relay.broken or str(error)
        if relay.events.error:
            return relay.events.error[:255].decode("utf-8", "replace")
        return "" if relay.events.done else why

    def _check(self, exchange: Exchange) -> None:
        """At the KV deadline a whole answer tells nothing yet. An engine whose server answers has taken the
        request and renews the lease; one that does not may have the request still before it."""
        self._engines.spawn(self._abort_if_frozen(exchange))

    async def _abort_if_frozen(self, exchange: Exchange) -> None:
        if not await self._engines.alive(self._engine, self._limits.health_s):
            exchange.abort(LATE)

    def _left_s(self) -> float:
        return self._prefilled + self._limits.kv_deadline_s - self._loop.time()

    async def _hand_over(self) -> Exchange:
        """Give the request to the engine that answers it, if there are blocks then before the KV deadline."""
        not_after = None if self._params is None else self._prefilled + self._limits.kv_deadline_s
        return await self._send(self._engine, self._ask.for_answer(self._params), "d", not_after)

    async def _send(self, engine: Engine, body: bytes, step: str, not_after: float | None = None) -> Exchange:
        head = b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            HEADS[self._ask.kind], engine.head, f"{self._trip.id}-{self._trip.attempts}{step}".encode(), len(body),
        )  # fmt: skip
        try:
            return await self._engines.pool(engine).send(head + body, not_after=not_after)
        except UpstreamError as error:
            late = not_after is not None and self._loop.time() >= not_after
            raise self._failure(engine, UpstreamError(LATE) if late else error) from error

    async def _finish(self, exchange: Exchange, engine: Engine) -> None:
        """Wait for the whole answer; any but a good one is raised."""
        try:
            await exchange.done
        except UpstreamError as error:
            raise self._failure(engine, error) from error
        finally:
            exchange.abort()  # nothing to abort when it is done: this is for a client that hung up
        if exchange.status != 200:
            raise_for(engine, None if engine is self._prefill else self._prefill, exchange.status, exchange.body)
        self._engines.trust(engine)

    def _failure(self, engine: Engine, error: UpstreamError) -> EngineFailed:
        if error.stale:  # its idle connections were closed: perhaps it restarted; a new one will tell
            self._engines.pool(engine).flush()
            return EngineFailed(engine, str(error), suspect=False)
        if str(error) == LATE:  # it may be slow only: prefer others to it
            return EngineFailed(engine, LATE, late=True)
        return EngineFailed(engine, str(error), engine)
