"""Serves one request: chooses a route and attempts it, and another if that fails before the first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiohttp import web

from controlplane.gateway.attempt import Attempt
from controlplane.gateway.engines import Engines
from controlplane.gateway.failures import EngineFailed
from controlplane.gateway.limits import Limits
from controlplane.gateway.openai import ApiError, Ask
from controlplane.gateway.table import Table
from controlplane.gateway.trip import Trip

log = structlog.get_logger(__name__)
LOOK_S = 0.2  # between two looks for an engine


class Proxy:
    def __init__(self, engines: Engines, limits: Limits, table: Callable[[], Table]) -> None:
        self._engines, self._limits, self._table = engines, limits, table

    async def serve(self, trip: Trip, ask: Ask, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to the client. Raises ApiError when no engine gives one."""
        prefix, fits = ask.prefix(), ask.fits_transfer()
        failed: set[int] = set()
        patience = Patience(self._limits.wait_s)
        while trip.attempts < self._limits.attempts:
            table = self._table()
            served = table.served.get(trip.deployment)  # not by an alias, which may have moved meanwhile
            if served is None:
                break
            transfer = fits and _long_enough(ask, served.min_transfer_tokens)
            route = self._engines.route(served, prefix=prefix, transfer=transfer, failed=failed)
            if route is None:
                had_one = trip.attempts or self._engines.had_one(served, self._limits.gap_s)
                if not had_one or not await patience.look():
                    break
                failed.intersection_update(self._table().engines)  # one that left and comes back has been started anew
                continue
            trip.attempts += 1
            try:
                attempt = Attempt(
                    trip, ask, route, table=table, latest=self._table,
                    engines=self._engines, limits=self._limits, failed=failed,
                )  # fmt: skip
                return await attempt.run(request)
            except EngineFailed as failure:
                if not self._engines.is_suspect(failure.engine):  # tell once, not once a request
                    log.warning("an attempt failed", request=trip.id, attempt=trip.attempts, why=str(failure))
                trip.error = str(failure)[:255]
                trip.kv_late += failure.late
                failed.update(failure.exclude)
                if failure.suspect:
                    self._engines.suspect(failure.engine)
        if trip.attempts:
            raise ApiError(503, "The engines could not serve this request.", code="engines_failed", retry_after=1)
        raise ApiError(503, f"No engine is ready for {ask.model!r}.", code="model_not_ready", retry_after=5)


class Patience:
    """How much longer one request waits for an engine."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    async def look(self) -> bool:
        """Wait a little; false when there has been enough of that."""
        if self._left_s <= 0:
            return False
        self._left_s -= LOOK_S
        await asyncio.sleep(LOOK_S)
        return True


def _long_enough(ask: Ask, min_transfer_tokens: int) -> bool:
    return not min_transfer_tokens or ask.estimated_tokens() >= min_transfer_tokens
