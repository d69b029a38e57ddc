"""Dedicated deployments whose own engines are full: an engine in the pool is asked for.

Where a deployment has no engine at all its requests are held, as those of pooled ones are: see holding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from controlplane.fleet.services.waking import Standing, State
from controlplane.gateway.holding import Wake
from controlplane.gateway.limits import Limits
from controlplane.gateway.lines import Lines
from controlplane.gateway.table import Served, Table

log = structlog.get_logger(__name__)
LOOK_S = 0.2  # between two looks at the lines
ASK_S = 2.0  # between two questions for the same deployment


class Overflow:
    """`watch` while requests wait in line. Everything here runs on the event loop."""

    def __init__(self, table: Callable[[], Table], lines: Lines, limits: Limits, wake: Wake) -> None:
        self._table, self._lines, self._limits, self._wake = table, lines, limits, wake
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.Task[None] | None = None
        self._asked: dict[str, float] = {}  # when the pool was last asked
        self._told: dict[str, State] = {}

    def watch(self, served: Served) -> None:
        """A request waits for room at the deployment's engines."""
        if served.overflow and (self._watching is None or self._watching.done()):
            self._watching = self._loop.create_task(self._watch())

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while any(self._may(name) for name in self._lines.lengths()):
            await asyncio.sleep(LOOK_S)
            if wanted := self._wanted():
                await self._ask(wanted)

    def _may(self, name: str) -> bool:
        served = self._table().served.get(name)
        return served is not None and served.overflow

    def _wanted(self) -> dict[str, int]:
        """Requests in line by deployment, of those where the first has waited for too long and no slot is lent yet."""
        now = self._loop.time()
        found = {}
        for name, length in self._lines.lengths().items():
            served = self._table().served.get(name)
            if served is None or not served.overflow or served.ready.overflow:
                continue
            if self._lines.waited_s(name) < self._limits.overflow_s or now - self._asked.get(name, -ASK_S) < ASK_S:
                continue
            found[name] = length
        return found

    async def _ask(self, wanted: Mapping[str, int]) -> None:
        self._asked.update(dict.fromkeys(wanted, self._loop.time()))
        try:
            standings = await self._wake(wanted)
        except Exception as error:
            log.error("overflow cannot be asked for; tried again", deployments=sorted(wanted), error=str(error))
            return
        for name, standing in standings.items():
            self._note(name, standing)

    def _note(self, name: str, standing: Standing) -> None:
        """Once for each that it comes to, not at each question."""
        if self._told.get(name) is not standing.state:
            self._told[name] = standing.state
            log.info("a deployment overflows", deployment=name, state=standing.state.value, why=standing.message)
