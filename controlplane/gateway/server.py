"""The gateway as clients see it: who may ask what, in OpenAI's words. Proxy serves; this admits and answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import msgspec
import structlog
from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from controlplane.gateway.buckets import Buckets
from controlplane.gateway.engines import Engines
from controlplane.gateway.failures import REFUSED, EngineRefused, outcome_of
from controlplane.gateway.holding import Hold, Wake
from controlplane.gateway.keys import hash_of
from controlplane.gateway.limits import Limits
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.openai import PATHS, ApiError, Kind, parse
from controlplane.gateway.overflow import Overflow
from controlplane.gateway.proxy import Proxy
from controlplane.gateway.records import Recorder
from controlplane.gateway.table import Key, Table
from controlplane.gateway.trip import Outcome, Trip

log = structlog.get_logger(__name__)
JSON = "application/json"
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")  # what proxies add


class Gateway:
    """One gateway process's state. `handle` answers every HTTP request."""

    def __init__(
        self, table: Callable[[], Table], recorder: Recorder, metrics: Metrics, limits: Limits, wake: Wake
    ) -> None:
        """`wake`: has pooled models woken, and tells how far they are."""
        self.table, self.recorder, self.metrics, self.limits = table, recorder, metrics, limits
        self.engines = Engines(limits.upstream, limits.stream_rest_s)
        self.hold = Hold(table, limits, wake)
        self.overflow = Overflow(table, self.engines.lines, limits, wake)
        self.proxy = Proxy(self.engines, limits, table, self.hold, self.overflow)
        self.buckets = Buckets()
        self.in_flight = self.engines.moderation.in_flight = 0
        self.draining = False
        self._loop = asyncio.get_running_loop()

    def server(self) -> web.Server:
        """The protocol factory for `create_server`."""
        loop, limit = self._loop, self.limits.body_bytes

        def request(
            message: object, payload: object, protocol: RequestHandler, writer: object, task: object
        ) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)  # type: ignore[arg-type]

        return web.Server(
            self.handle,
            request_factory=request,  # type: ignore[arg-type]
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=75.0,
            lingering_time=2.0,
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        kind = PATHS.get(request.path)
        try:
            if kind is not None:
                return await self._generate(request, kind)
            return self._other(request)
        except ApiError as error:
            return answer(error)
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception:
            log.exception("a request failed", path=request.path)
            return answer(ApiError(500, "The gateway failed.", code="internal_error"))

    async def _generate(self, request: web.BaseRequest, kind: Kind) -> web.StreamResponse:
        if request.method != "POST":
            raise ApiError(405, "Use POST.", code="method_not_allowed")
        key = self._key(request)
        trip = Trip(kind.value, time.time(), self._loop.time(), key=key.id)
        self._count(1)
        try:
            return await self._serve(request, kind, key, trip)
        except ApiError as error:
            self._note(trip, error)
            return answer(error, trip.id)
        except EngineRefused as refusal:
            trip.outcome, trip.status = Outcome.CLIENT_ERROR, refusal.status
            trip.error = REFUSED
            return passed_on(refusal, trip)
        except (asyncio.CancelledError, ConnectionResetError):
            trip.outcome, trip.status = Outcome.CANCELLED, 499
            raise
        finally:
            self._count(-1)
            self._end(trip)

    def _count(self, more: int) -> None:
        self.in_flight = self.engines.moderation.in_flight = self.in_flight + more

    async def _serve(self, request: web.BaseRequest, kind: Kind, key: Key, trip: Trip) -> web.StreamResponse:
        self._admit(key)
        ask = parse(await self._body(request), kind)
        trip.streamed = ask.stream
        served = self.table().served.get(ask.model)
        if served is None or not key.opens(served.name):
            message = f"The model {ask.model!r} does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found", param="model")
        trip.deployment = served.name
        self.recorder.demand.begin(served.name, trip.at)
        return await self.proxy.serve(trip, ask, request)

    def _admit(self, key: Key) -> None:
        if self.draining:
            raise ApiError(503, "The gateway is shutting down.", code="shutting_down", retry_after=1)
        if self.in_flight > self.limits.in_flight:
            raise ApiError(503, "The gateway is full.", code="overloaded", retry_after=1)
        if key.over is not None and (left_s := key.over.until - time.time()) > 0:
            wait_s = math.ceil(left_s)
            raise ApiError(429, key.over.message, code="budget_exceeded", kind="insufficient_quota", retry_after=wait_s)
        if key.id is not None and key.requests_per_minute:
            wait_s = self.buckets.take(key.id, key.requests_per_minute, self._loop.time())
            if wait_s:
                message = f"This key may send {key.requests_per_minute} requests a minute."
                raise ApiError(429, message, code="rate_limit_exceeded", kind="rate_limit_error", retry_after=wait_s)

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self.limits.body_bytes
        too_large = ApiError(413, f"The body is larger than {limit} bytes.", code="request_too_large")
        if (request.content_length or 0) > limit:
            raise too_large
        try:
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(self.limits.body_s):
                return await request.read()
        except HTTPRequestEntityTooLarge:
            raise too_large from None
        except TimeoutError:
            raise ApiError(408, "The body did not come in time.", code="request_timeout") from None
        except RequestPayloadError:
            raise ApiError(400, "The body is not what its headers say.", code="invalid_body") from None

    def _key(self, request: web.BaseRequest) -> Key:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        key = self.table().keys.get(hash_of(token)) if scheme.lower() == "bearer" and token else None
        if key is None or (key.expires_at is not None and key.expires_at <= time.time()):
            self.metrics.unauthorized.inc()
            said = (
                "Incorrect API key provided." if token else "You didn't provide an API key: Authorization: Bearer KEY."
            )
            raise ApiError(401, said, code="invalid_api_key")
        return key

    def _other(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            raise ApiError(404, f"Unknown path {request.method} {request.path[:200]}.", code="unknown_path")
        if request.path == "/health":
            return self._health()
        if request.path == "/metrics":
            return self._metrics(request)
        if request.path == "/v1/models" or request.path.startswith("/v1/models/"):
            return self._models(request)
        raise ApiError(404, f"Unknown path {request.path[:200]}.", code="unknown_path")

    def _health(self) -> web.Response:
        read_at = self.table().read_at
        age = round(time.monotonic() - read_at, 1) if read_at else None
        state = "draining" if self.draining else "ok" if read_at else "starting"
        body = msgspec.json.encode({"status": state, "table_age_s": age, "in_flight": self.in_flight})
        return web.Response(status=200 if state == "ok" else 503, body=body, content_type=JSON)

    def _metrics(self, request: web.BaseRequest) -> web.Response:
        """They name deployments, so other machines need a key; so does who comes through a proxy on this one."""
        if request.remote not in {"127.0.0.1", "::1"} or any(name in request.headers for name in FORWARDED):
            self._key(request)
        self.metrics.in_flight.set(self.in_flight)
        self.metrics.unwritten.set(self.recorder.waiting)
        self.metrics.queued.clear()
        for deployment, length in self.engines.lines.lengths().items():
            self.metrics.queued.labels(deployment).set(length)
        self.metrics.waking.clear()
        for deployment, length in self.hold.lengths().items():
            self.metrics.waking.labels(deployment).set(length)
        self.metrics.table_age.set(time.monotonic() - self.table().read_at)
        return web.Response(body=self.metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})

    def _models(self, request: web.BaseRequest) -> web.Response:
        key = self._key(request)
        rows = {
            name: {"id": name, "object": "model", "created": served.created, "owned_by": "forebay"}
            for name, served in self.table().served.items()
            if key.opens(served.name)
        }
        wanted = request.path.removeprefix("/v1/models").removeprefix("/")
        if not wanted:
            body = {"object": "list", "data": [rows[name] for name in sorted(rows)]}
        elif wanted in rows:
            body = rows[wanted]
        else:
            raise ApiError(404, f"The model {wanted[:256]!r} does not exist.", code="model_not_found", param="model")
        return web.Response(body=msgspec.json.encode(body), content_type=JSON)

    def _note(self, trip: Trip, error: ApiError) -> None:
        trip.status, trip.error, trip.outcome = error.status, trip.error or str(error)[:255], outcome_of(error)

    def _end(self, trip: Trip) -> None:
        trip.ended = self._loop.time()
        if trip.completion_tokens is None and trip.events:
            trip.completion_tokens = trip.events  # cut short: the engine did not come to tell
        if trip.deployment:
            self.recorder.demand.end(
                trip.deployment,
                time.time(),
                prompt=trip.prompt_tokens or 0,
                completion=trip.completion_tokens or 0,
                failed=trip.outcome == Outcome.ERROR,
            )
        self.recorder.add(trip)


def answer(error: ApiError, request_id: str = "") -> web.Response:
    headers = {"content-type": JSON, "server": "forebay"}
    if request_id:
        headers["x-request-id"] = request_id
    if error.retry_after:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return web.Response(status=error.status, body=error.body(), headers=headers)


def passed_on(refusal: EngineRefused, trip: Trip) -> web.Response:
    headers = {"content-type": JSON, "x-request-id": trip.id}
    return web.Response(status=refusal.status, body=refusal.told(), headers=headers)
