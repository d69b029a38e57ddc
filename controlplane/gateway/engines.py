"""The engines as this gateway process sees them at work: connections, requests in flight, who failed lately."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Coroutine
from typing import Any

import msgspec

from controlplane.domain.routing import Route, pick, pick_decode
from controlplane.gateway.exchange import UpstreamError
from controlplane.gateway.failures import require_open
from controlplane.gateway.lent import Lent
from controlplane.gateway.lines import Lines
from controlplane.gateway.moderation import Moderation
from controlplane.gateway.table import Engine, Process, Served, Table
from controlplane.gateway.upstream import Bounds, Pool

SUSPECT_S = 5.0


class _Model(msgspec.Struct):
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class Engines:
    """Chooses among the table's engines. The table itself is replaced from outside. `rest_s`: of Moderation."""

    def __init__(self, bounds: Bounds, rest_s: float = 0.0) -> None:
        self.load: defaultdict[int, int] = defaultdict(int)
        self._bounds = bounds
        self._pools: dict[tuple[str, int], Pool] = {}
        self._suspect: dict[int, tuple[Process, float]] = {}  # by id, of that process, until then
        self._had: dict[str, float] = {}  # when a deployment last had an engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.moderation = Moderation(self._loop, rest_s)
        self.lines, self.lent = Lines(), Lent()

    def release(self, id: int) -> None:
        """The engine has one request less."""
        self.load[id] -= 1
        self.lines.freed()

    def route(
        self, table: Table, served: Served, *, prefix: int, transfer: bool, failed: Collection[int]
    ) -> Route | None:
        return pick(
            served.ready, self.load, most=served.most, prefix=prefix, transfer=transfer, failed=failed,
            suspect=self._suspects(table),
        )  # fmt: skip

    def decode(self, table: Table, served: Served, *, prefix: int, failed: Collection[int]) -> int | None:
        return pick_decode(served.ready, self.load, prefix=prefix, failed=failed, suspect=self._suspects(table))

    def pool(self, engine: Engine) -> Pool:
        at = (engine.host, engine.port)
        pool = self._pools.get(at)
        if pool is None:
            pool = self._pools[at] = Pool(engine.host, engine.port, self._bounds, self.moderation)
        return pool

    def suspect(self, engine: Engine) -> None:
        """Prefer others to it for a while."""
        self._suspect[engine.id] = engine.process, self._loop.time() + SUSPECT_S

    def is_suspect(self, engine: Engine) -> bool:
        return (found := self._suspect.get(engine.id)) is not None and found[0] == engine.process

    def trust(self, engine: Engine) -> None:
        self._suspect.pop(engine.id, None)

    async def alive(self, engine: Engine, within_s: float) -> bool:
        """Whether the engine's server answers at all."""
        try:
            pool = self.pool(engine)
            exchange = await pool.send(b"GET /health HTTP/1.1\r\n" + engine.head + b"\r\n")
            exchange.deadline(within_s, "no answer to /health")
            await exchange.done
        except UpstreamError:
            return False
        return exchange.status == 200

    async def context(self, engine: Engine, within_s: float) -> int | None:
        """How many tokens the engine's model takes in all, as it says itself. Raises EngineFailed at a shut door."""
        try:
            exchange = await self.pool(engine).send(b"GET /v1/models HTTP/1.1\r\n" + engine.head + b"\r\n")
            exchange.deadline(within_s, "no answer to /v1/models")
            await exchange.done
            require_open(engine, exchange.status, exchange.body)
            models = msgspec.json.decode(exchange.body, type=_Models).data
        except (UpstreamError, ValueError, RecursionError):
            return None
        return models[0].max_model_len if models else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the requests."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def had_one(self, served: Served, within_s: float) -> bool:
        """Whether the deployment had an engine lately."""
        return self._loop.time() - self._had.get(served.name, -math.inf) < within_s

    def sweep(self, table: Table) -> None:
        """Let go of engines that left the table, and of connections idle too long."""
        now = self._loop.time()
        for served in table.served.values():
            if served.has_engine or served.ready.prefill:
                self._had[served.name] = now
        known = {(engine.host, engine.port) for engine in table.engines.values()}
        for at in [at for at in self._pools if at not in known]:
            self._pools.pop(at).close()
        for pool in self._pools.values():
            pool.sweep()
        for id in [id for id, load in self.load.items() if not load]:
            del self.load[id]

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        for task in self._tasks:
            task.cancel()

    def _suspects(self, table: Table) -> Collection[int]:
        if not self._suspect:
            return ()
        now = self._loop.time()
        for id in [id for id, (_, until) in self._suspect.items() if until < now]:
            del self._suspect[id]
        return {id for id in self._suspect if (engine := table.engines.get(id)) and self.is_suspect(engine)}
