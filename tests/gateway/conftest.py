"""A real gateway in the test's own event loop, on a free port, against stand-in engines. No database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import uvloop
from aiohttp import web

from controlplane.domain.routing import Ready
from controlplane.fleet.services.waking import Standing
from controlplane.gateway.holding import Wake
from controlplane.gateway.keys import hash_of
from controlplane.gateway.limits import Limits
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.records import Recorder
from controlplane.gateway.run import end, listen
from controlplane.gateway.server import Gateway
from controlplane.gateway.table import Engine, Key, Served, Table
from controlplane.gateway.trip import Trip
from tests.gateway.collector import ENDPOINT, Collector
from tests.standin_engine import Fabric, Standin

KEY = "fb-test"
PROMPT = "What holds water ready in front of a turbine?"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Site:
    """A gateway, its engines, and what it recorded."""

    gateway: Gateway
    table: Table
    client: httpx.AsyncClient
    port: int
    protocol: web.Server
    prefill: list[Standin] = field(default_factory=list)
    decode: list[Standin] = field(default_factory=list)
    aggregated: list[Standin] = field(default_factory=list)

    async def complete(self, **more: Any) -> httpx.Response:
        body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 4, **more}
        return await self.client.post("/v1/completions", json={k: v for k, v in body.items() if v is not ...})

    async def chat(self, **more: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4, **more}
        return await self.client.post("/v1/chat/completions", json={k: v for k, v in body.items() if v is not ...})

    def trips(self) -> list[Trip]:
        return list(self.gateway.recorder._new)

    async def recorded(self) -> Trip:
        """The only record, once it is there: a client may see its answer's end a moment before."""
        await eventually(lambda: self.gateway.in_flight == 0 and self.trips(), 10)
        (trip,) = self.trips()
        return trip

    def transports(self) -> list[asyncio.Transport]:
        """The connections of the clients."""
        return [protocol.transport for protocol in self.protocol.connections if protocol.transport is not None]

    def set_keys(self, **keys: Key) -> None:
        self.table.keys.clear()
        self.table.keys.update({hash_of(name): key for name, key in keys.items()})

    def serve_as(self, **changes: Any) -> None:
        self.table.served["tiny"] = replace(self.table.served["tiny"], **changes)


MakeSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def make_site() -> AsyncIterator[MakeSite]:
    """Makes a site: `prefill`, `decode` and `aggregated` say how many engines of each role it has.
    Unless a test says otherwise, no request waits for an engine to come."""
    sites: list[tuple[Site, asyncio.Server]] = []

    async def make(
        prefill: int = 1,
        decode: int = 1,
        aggregated: int = 0,
        kind: Callable[..., Gateway] = Gateway,
        wake: Wake | None = None,
        **limits: Any,
    ) -> Site:
        wake = wake or nobody
        fabric = Fabric()
        roles = {"prefill": prefill, "decode": decode, "aggregated": aggregated}
        engines = {
            role: [await Standin(f"{role}{i}", f"key-{role}{i}", fabric=fabric).start() for i in range(count)]
            for role, count in roles.items()
        }
        table = table_of(engines)
        table.keys[hash_of(KEY)] = Key(id=1)
        metrics = Metrics()
        gateway = kind(lambda: table, Recorder(metrics), metrics, Limits(**{"wait_s": 0.0} | limits), wake)
        protocol = gateway.server()
        listener = await listen(protocol, "127.0.0.1", 0, gateway.limits)
        port = listener.sockets[0].getsockname()[1]
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=20,
            limits=httpx.Limits(max_connections=None),
        )
        sites.append((site := Site(gateway, table, client, port, protocol, **engines), listener))
        return site

    yield make
    for site, listener in sites:
        await site.client.aclose()
        await end(site.gateway, listener, site.protocol, drain_s=0.0)
        for engine in [*site.prefill, *site.decode, *site.aggregated]:
            await engine.stop()
    await asyncio.sleep(0.01)


async def nobody(held: Mapping[str, int]) -> dict[str, Standing]:
    """For gateways whose models all have engines, or never will."""
    return {}


def table_of(engines: dict[str, list[Standin]]) -> Table:
    rows: dict[int, Engine] = {}
    ready: dict[str, tuple[int, ...]] = {}
    for role, standins in engines.items():
        for standin in standins:
            row = Engine.at(len(rows) + 1, f"node/{standin.name}", standin.url, standin.key)
            assert row is not None
            rows[row.id] = row
            ready[role] = (*ready.get(role, ()), row.id)
    served = Served("tiny", created=1, ready=Ready(**ready))
    return Table({}, {"tiny": served, "small": served}, rows, read_at=1.0)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Where this process, and those that it starts, send traces."""
    made = Collector()
    monkeypatch.setenv(ENDPOINT, made.url)
    made.thread.start()
    yield made
    made.close()


async def eventually(true: Callable[[], Any], within_s: float = 30.0) -> None:
    until = asyncio.get_running_loop().time() + within_s
    while not true():
        assert asyncio.get_running_loop().time() < until, "it did not come about"
        await asyncio.sleep(0.005)


def events(text: str) -> list[str]:
    """The data of each event of an SSE body."""
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]
