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
from controlplane.gateway.probing import Prober
from controlplane.gateway.records import Recorder
from controlplane.gateway.run import end, listen
from controlplane.gateway.server import Gateway
from controlplane.gateway.table import Engine, Key, Served, Table
from controlplane.gateway.trials import Pace
from controlplane.gateway.trip import Trip
from controlplane.gateway.upstream import Bounds
from controlplane.gateway.warming import Warming
from tests.gateway.collector import ENDPOINT, Collector
from tests.standin_engine import Seen, Standin
from tests.standin_fabric import Fabric

KEY = "fb-test"


PROMPT = "What holds water ready in front of a turbine?"


QUICK = Pace(tick_s=0.02, retry_s=0.05, retry_most_s=0.1, hurry_s=0.3)


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


@dataclass
class Place:
    """A gateway whose table is shown to it by the test. An engine's id is its place in `engines`."""

    warming: Warming
    gateway: Gateway
    client: httpx.AsyncClient
    told: list[tuple[int, int, bool, str]] = field(default_factory=list)
    deaf: bool = False  # it cannot be told
    fabric: Fabric = field(default_factory=Fabric)
    engines: dict[int, Standin] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    generation: dict[int, int] = field(default_factory=dict)

    async def engine(self, fabric: Fabric | None = None) -> int:
        id = len(self.engines) + 1
        standin = Standin(f"e{id}", f"key-{id}", fabric=fabric or self.fabric)
        self.engines[id] = await standin.start()
        return id

    def show(
        self,
        *,
        prefill: tuple[int, ...] = (),
        decode: tuple[int, ...] = (),
        aggregated: tuple[int, ...] = (),
        overflow: tuple[int, ...] = (),
        alike: bool = False,
        pair: bool = False,
    ) -> None:
        """As the next table that is read shows it."""
        ready = Ready(prefill, decode, aggregated, overflow, alike=alike)
        served = Served("tiny", created=1, block_tokens=16, ready=ready, pooled=pair, pair=pair)
        rows = {id: self._row(id) for id in (*prefill, *decode, *aggregated, *overflow)}
        self.warming.take(Table({hash_of(KEY): Key(id=1)}, {"tiny": served, "small": served}, rows, read_at=1.0))

    def tell(self, partition: int, generation: int, passed: bool, why: str) -> None:
        if self.deaf:
            raise RuntimeError("nobody hears it")
        self.told.append((partition, generation, passed, why))

    def _row(self, id: int) -> Engine:
        standin = self.engines[id]
        row = Engine.at(
            id, standin.name, standin.url, standin.key,
            generation=self.generation.get(id, 1), since=self.since.get(id, 1.0),
        )  # fmt: skip
        assert row is not None
        return row

    @property
    def used(self) -> Ready:
        served = self.warming.table.served
        assert served["small"] is served["tiny"]
        return served["tiny"].ready

    def tried(self, id: int) -> list[Seen]:
        return [seen for seen in self.engines[id].served if seen.headers.get("x-request-id", "").startswith("warm-")]

    async def complete(self) -> httpx.Response:
        return await self.client.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, "max_tokens": 2})


MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make_place() -> AsyncIterator[MakePlace]:
    made: list[tuple[Place, Any, Any, asyncio.Task[None]]] = []

    async def make(pace: Pace = QUICK, limit_s: float = 5.0) -> Place:
        metrics = Metrics()
        warming = Warming(Prober(Bounds(), limit_s), lambda *finding: place.tell(*finding), metrics, pace)
        gateway = Gateway(lambda: warming.table, Recorder(metrics), metrics, Limits(), nobody)
        protocol = gateway.server()
        listener = await listen(protocol, "127.0.0.1", 0, gateway.limits)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
        place = Place(warming, gateway, client)
        made.append((place, listener, protocol, asyncio.create_task(warming.run())))
        return place

    yield make
    for place, listener, protocol, running in made:
        running.cancel()
        place.warming.close()
        await place.client.aclose()
        await end(place.gateway, listener, protocol, drain_s=0.0)
        for engine in place.engines.values():
            await engine.stop()
    await asyncio.sleep(0.01)


@pytest.fixture
async def pair(make_place: MakePlace) -> Place:
    """Engine 1 prefills, engine 2 decodes; both have been tried."""
    place = await make_place()
    one, two = await place.engine(), await place.engine()
    place.show(prefill=(one,), decode=(two,))
    await eventually(lambda: len(place.told) == 2)
    place.told.clear()
    for engine in place.engines.values():
        engine.served.clear()
    return place


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
