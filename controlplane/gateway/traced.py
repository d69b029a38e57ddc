"""The gateway that notes a trace of each request. One that does not has none of this on its path: see run.py."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from aiohttp import web

from controlplane.gateway.attempt import Attempt
from controlplane.gateway.exchange import Exchange
from controlplane.gateway.openai import Kind
from controlplane.gateway.proxy import Proxy
from controlplane.gateway.server import Gateway
from controlplane.gateway.spans import DECODE, PREFILL, Trace
from controlplane.gateway.table import Engine, Key
from controlplane.gateway.trip import Trip


class Begins(Protocol):
    def begin(self, headers: Mapping[str, str]) -> Trace: ...


class TracedGateway(Gateway):
    def __init__(self, tracer: Begins, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer
        self.proxy = Proxy(self.engines, self.limits, self.table, self.hold, self.overflow, attempt=TracedAttempt)

    async def _serve(self, request: web.BaseRequest, kind: Kind, key: Key, trip: Trip) -> web.StreamResponse:
        trip.trace = self._tracer.begin(request.headers)
        return await super()._serve(request, kind, key, trip)


class TracedAttempt(Attempt):
    __slots__ = ()

    async def run(self) -> web.StreamResponse:
        trace = self._trip.trace
        assert trace is not None
        try:
            answer = await super().run()
        except asyncio.CancelledError:
            trace.end(self._loop.time(), "the client hung up")
            raise
        except Exception as error:
            trace.end(self._loop.time(), type(error).__name__)  # its text might be the client's
            raise
        trace.end(self._loop.time())
        return answer

    async def _run_prefill(self, engine: Engine) -> msgspec.Raw | None:
        params = await super()._run_prefill(engine)
        assert self._trip.trace is not None
        self._trip.trace.end(self._prefilled)
        return params

    async def _send(self, engine: Engine, body: bytes, step: str, not_after: float | None = None) -> Exchange:
        trip = self._trip
        assert trip.trace is not None
        at = trip.trace.begin(PREFILL if step == "p" else DECODE, engine.name, trip.attempts, self._loop.time())
        told = replace(engine, head=engine.head + trip.trace.headers(at))
        return await super()._send(told, body, step, not_after)
