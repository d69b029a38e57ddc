"""Serves one request: chooses a route and attempts it, and another if that fails. A stream that has begun goes on
elsewhere where that can be done faithfully, and ends with an error where it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import structlog
from aiohttp import web

from controlplane.domain.routing import Route, has_room
from controlplane.gateway.attempt import Attempt, Streaming
from controlplane.gateway.avoiding import DOOR_S, Avoided
from controlplane.gateway.continuing import next_ask, shows_ids, transcript_for
from controlplane.gateway.engines import Engines
from controlplane.gateway.failures import REFUSED, EngineFailed, EngineRefused, StreamBroke, outcome_of
from controlplane.gateway.holding import Hold, Murmur
from controlplane.gateway.limits import Limits
from controlplane.gateway.openai import ApiError, Ask, error_body
from controlplane.gateway.outlet import Outlet
from controlplane.gateway.overflow import Overflow
from controlplane.gateway.splice import Splice, closing, whole_usage
from controlplane.gateway.sse import Events
from controlplane.gateway.table import Served, Table
from controlplane.gateway.transcript import Transcript
from controlplane.gateway.trip import Outcome, Trip

log = structlog.get_logger(__name__)
LOOK_S = 0.2  # between two looks for an engine
OFF = frozenset({"off", "0", "false", "no"})


class Proxy:
    def __init__(
        self,
        engines: Engines,
        limits: Limits,
        table: Callable[[], Table],
        hold: Hold,
        overflow: Overflow,
        *,
        attempt: type[Attempt] = Attempt,
    ) -> None:
        self._engines, self._limits, self._table, self._new_attempt = engines, limits, table, attempt
        self._hold, self._overflow = hold, overflow

    async def serve(self, trip: Trip, ask: Ask, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to the client. Raises ApiError when no engine gives one."""
        if not ask.stream:
            return await self._attempt(trip, ask, None, Avoided())
        outlet, transcript = Outlet(request), self._transcript(ask, request)
        if transcript is not None:
            ask = replace(ask, ids=True)
        try:
            return await self._attempt(trip, ask, lambda: _first(ask, outlet, transcript), Avoided(), outlet)
        except StreamBroke as broke:
            return await self._go_on(trip, ask, outlet, transcript, broke)
        except (ApiError, EngineRefused) as error:
            if outlet.response is None:
                raise
            return await _tell(trip, outlet, error)

    def _transcript(self, ask: Ask, request: web.BaseRequest) -> Transcript | None:
        """None when this request's stream is not to go on on another engine."""
        if not self._limits.continuations or request.headers.get("x-forebay-continue", "").lower() in OFF:
            return None
        return transcript_for(ask)

    async def _go_on(
        self, trip: Trip, ask: Ask, outlet: Outlet, transcript: Transcript | None, broke: StreamBroke
    ) -> web.StreamResponse:
        self._blame(trip, broke)
        avoided = Avoided()
        while transcript is not None:
            transcript.settle()
            if transcript.finished and not transcript.lost:
                return await _finish(trip, ask, outlet, transcript)
            following = next_ask(ask, transcript) if trip.continued < self._limits.continuations else None
            if following is None:
                break
            if not broke.said:  # else it lives, and is as good as any when there is no other
                avoided.fail(broke.engine)
            splice = _splice(ask, following, transcript)
            try:
                return await self._attempt(trip, following, lambda s=splice: Streaming(outlet, s()), avoided, outlet)
            except StreamBroke as again:
                self._blame(trip, broke := again)
            except (ApiError, EngineRefused) as error:
                log.warning("a stream cannot go on", request=trip.id, why=str(error))
                break
        return await self._fail(trip, outlet, transcript, broke)

    async def _attempt(
        self,
        trip: Trip,
        ask: Ask,
        streaming: Callable[[], Streaming] | None,
        avoided: Avoided,
        outlet: Outlet | None = None,
    ) -> web.StreamResponse:
        murmur = outlet and partial(outlet.murmur, trip.early_headers())
        look = self._chooser(trip, ask, avoided)
        patience = Patience(self._limits.wait_s, avoided)
        tries, is_let_in = 0, bool(trip.attempts)
        while tries < self._limits.attempts and (choice := look()):
            if choice.route is None:
                if not await self._until_one_comes(trip, ask, choice.served, patience, murmur):
                    break
                avoided.waited(self._table())
                continue
            if choice.served.most is not None and not is_let_in:  # who has been let in does not wait once more
                choice = await self._line_up(trip, choice, look, avoided)
                is_let_in = True
            tries += 1
            trip.attempts += 1
            try:
                return await self._new_attempt(
                    trip, ask, choice.route, table=choice.table, latest=self._table, engines=self._engines,
                    limits=self._limits, avoided=avoided, streaming=streaming and streaming(),
                ).run()  # fmt: skip
            except EngineFailed as failure:
                if self._avoid(trip, failure, avoided):
                    tries -= 1
                    is_let_in = bool(tries or trip.continued)  # else it had its turn at an engine that takes nobody
        if tries:
            raise ApiError(503, "The engines could not serve this request.", code="engines_failed", retry_after=1)
        raise ApiError(503, f"No engine is ready for {ask.model!r}.", code="model_not_ready", retry_after=5)

    async def _until_one_comes(
        self, trip: Trip, ask: Ask, served: Served, patience: Patience, murmur: Murmur | None
    ) -> bool:
        """Whether to look again for an engine: after a while, or when one has been woken in the pool."""
        may_wake = not served.has_engine
        if may_wake and served.pooled:
            await self._hold.until_served(trip, served, ask, murmur)
            return True
        had_one = trip.attempts or self._engines.had_one(served, self._limits.gap_s)
        if had_one and await patience.look():
            return True
        if may_wake and served.overflow:
            await self._hold.until_served(trip, served, ask, murmur)
        return may_wake and served.overflow

    def _chooser(self, trip: Trip, ask: Ask, avoided: Avoided) -> Callable[[], _Choice | None]:
        prefix, fits = ask.prefix(), ask.fits_transfer()

        def look() -> _Choice | None:
            """What there is now; None when the deployment is gone."""
            table = self._table()
            served = table.served.get(trip.deployment)  # not by an alias, which may have moved meanwhile
            if served is None:
                return None
            transfer = fits and _long_enough(ask, served.min_transfer_tokens)
            failed = avoided.ids(table)
            route = self._engines.route(table, served, prefix=prefix, transfer=transfer, failed=failed)
            return _Choice(table, served, route)

        return look

    async def _line_up(
        self, trip: Trip, choice: _Choice, look: Callable[[], _Choice | None], avoided: Avoided
    ) -> _Choice:
        """Wait for room at the engines, behind those who wait already."""
        lines, name, limits = self._engines.lines, choice.served.name, self._limits
        waiting = lines.length(name)
        if not waiting and self._has_room(choice):
            return choice

        loop = asyncio.get_running_loop()
        began = loop.time()

        def with_room() -> _Choice | None:
            if loop.time() > began + DOOR_S:  # a door that was shut may be open
                avoided.waited(self._table())
            found = look()
            return found if found is not None and self._has_room(found) else None

        found = None
        if waiting < limits.queue_length:
            self._overflow.watch(choice.served)
            try:
                found = await lines.turn(name, with_room, limits.queue_s)
            finally:
                trip.queued_s += loop.time() - began
        if found is None:
            message = f"The engines of {name!r} are full, and {waiting} requests were waiting already."
            raise ApiError(503, message, code="overloaded", retry_after=5)
        return found

    def _has_room(self, choice: _Choice) -> bool:
        served, route = choice.served, choice.route
        if route is None:
            return False
        return has_room(route, served.ready, self._engines.load, served.most)

    def _avoid(self, trip: Trip, failure: EngineFailed, avoided: Avoided) -> bool:
        """Whether it only was a shut door."""
        trip.error = str(failure)[:255]
        if failure.shut and avoided.shut(failure.engine, asyncio.get_running_loop().time()):
            return True
        if not self._engines.is_suspect(failure.engine):  # tell once, not once a request
            log.warning("an attempt failed", request=trip.id, attempt=trip.attempts, why=str(failure))
        trip.kv_late += failure.late
        avoided.fail(*failure.exclude)
        if failure.suspect or failure.shut:
            self._engines.suspect(failure.engine)
        return False

    def _blame(self, trip: Trip, broke: StreamBroke) -> None:
        log.warning("a stream broke", request=trip.id, engine=broke.engine.name, why=str(broke))
        self._engines.suspect(broke.engine)

    async def _fail(
        self, trip: Trip, outlet: Outlet, transcript: Transcript | None, broke: StreamBroke
    ) -> web.StreamResponse:
        trip.outcome, trip.error = Outcome.ERROR, str(broke)[:255]
        if transcript is not None or not broke.said:  # without a transcript the client has had the engine's words
            said = error_body("The engine failed during the answer.", kind="server_error", code="engine_failed")
            outlet.write(b"data: " + (broke.said or said) + b"\n\n")
        return await outlet.close()


@dataclass(frozen=True, slots=True)
class _Choice:
    table: Table
    served: Served
    route: Route | None


class Patience:
    """How much longer one request waits for an engine: at a shut door at least as long as it may stay shut."""

    def __init__(self, seconds: float, avoided: Avoided) -> None:
        self._most_s, self._avoided = seconds, avoided
        self._waited_s = 0.0

    async def look(self) -> bool:
        """Wait a little; false when there has been enough of that."""
        most_s = max(self._most_s, DOOR_S) if self._avoided.is_at_door else self._most_s
        if self._waited_s >= most_s:
            return False
        pause_s = self._avoided.pause_s(LOOK_S)
        self._waited_s += pause_s
        await asyncio.sleep(pause_s)
        return True


async def _tell(trip: Trip, outlet: Outlet, error: ApiError | EngineRefused) -> web.StreamResponse:
    """In a stream that was begun while its model was woken: the client has had a good status already."""
    trip.status = 200
    if isinstance(error, EngineRefused):
        trip.outcome, trip.error, said = Outcome.CLIENT_ERROR, REFUSED, error.told()
    else:
        trip.outcome, trip.error, said = outcome_of(error), trip.error or str(error)[:255], error.body()
    outlet.write(b"data: " + msgspec.json.format(said, indent=-1) + b"\n\n")  # an event's data is one line
    return await outlet.close()


def _first(ask: Ask, outlet: Outlet, transcript: Transcript | None) -> Streaming:
    events = Events(strip_usage=not ask.wants_usage, transcript=transcript, show_ids=shows_ids(ask))
    return Streaming(outlet, events)


def _splice(ask: Ask, following: Ask, transcript: Transcript) -> Callable[[], Splice]:
    return lambda: Splice(ask, transcript, show_ids=shows_ids(ask), anew=following is ask)


async def _finish(trip: Trip, ask: Ask, outlet: Outlet, transcript: Transcript) -> web.StreamResponse:
    """The engine died when all was said but the end."""
    usage = whole_usage(transcript)
    trip.take_usage(usage)
    trip.outcome, trip.error = Outcome.OK, ""
    outlet.write(closing(ask, transcript, usage))
    return await outlet.close()


def _long_enough(ask: Ask, min_transfer_tokens: int) -> bool:
    return not min_transfer_tokens or ask.estimated_tokens() >= min_transfer_tokens
