"""A whole gateway in virtual time, and its clients: what gateway.run.serve puts together, but that the work of its
threads (table, records, telling, waking) is done on the event loop, at the moments that they would do it or a little
later. Everything that a request goes through is the product's: the HTTP server, admission, holding, asking, routing,
trials of engines, the connections to them, records and counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.conf import settings

from bench._pool_engines import UNTIL
from bench._virtual import until
from controlplane.fleet.services.waking import Standing
from controlplane.gateway import holding, keys
from controlplane.gateway.exchange import UpstreamError
from controlplane.gateway.limits import Limits
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.probing import Prober
from controlplane.gateway.records import Recorder
from controlplane.gateway.run import _sweep, end, follow, listen, uses
from controlplane.gateway.server import Gateway
from controlplane.gateway.telling import Teller
from controlplane.gateway.trials import Pace
from controlplane.gateway.upstream import Bounds, Pool
from controlplane.gateway.waker import Waker
from controlplane.gateway.warming import Warming
from controlplane.gateway.watch import Watch

NAME = "simulated:1"
GLANCE_S = 0.2  # as Watch's
TELL_S = 1.0  # as telling.LOOK_S
ASK_S = 2.0  # between two questions how far models are: the gateway asks each half second
TICK_S = 1.0  # as trials.Pace's, which is a quarter
IDLE_S = 60.0  # of a client's connection: less than the gateway keeps it


@dataclass(slots=True)
class Front:
    """`before` is called before anything of the database is judged, `asked` after models were asked for."""

    before: Callable[[], None]
    asked: Callable[[Mapping[str, int], Mapping[str, Standing]], None]
    wake_ms: list[float] = field(default_factory=list)  # CPU, of one model's first asking
    wakes: int = 0
    looks: int = 0  # at the table, since something had changed
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0  # requests whose connection broke
    gateway: Gateway = field(init=False)
    watch: Watch = field(init=False)
    waker: Waker = field(init=False)
    teller: Teller = field(init=False)
    warming: Warming = field(init=False)
    _clients: Pool = field(init=False)
    _head: bytes = b""
    _beside: list[asyncio.Task[None]] = field(default_factory=list)
    _protocol: Any = None
    _listener: Any = None
    _told_at: float = 0.0
    _glancing: bool = False
    _known: frozenset[str] = frozenset()

    async def open(self) -> None:
        holding.ASK_S = ASK_S
        loop, limits, metrics = asyncio.get_running_loop(), Limits(), Metrics()
        self.watch, self.waker = Watch(), Waker()
        self.watch.look()
        self.teller = Teller(lambda: uses(self.gateway, self.watch.table))
        self.teller._gateway, self.teller._address = NAME, "127.0.0.1"
        self.warming = Warming(Prober(limits.upstream), self._tell, metrics, Pace(tick_s=TICK_S))
        follow(self.watch, self.warming)
        self.gateway = Gateway(lambda: self.warming.table, Recorder(metrics), metrics, limits, self._wake)
        self._protocol = self.gateway.server()
        self._listener = await listen(self._protocol, "127.0.0.1", 0, limits)
        port = self._listener.sockets[0].getsockname()[1]
        self._beside = [loop.create_task(_sweep(self.gateway, self.watch)), loop.create_task(self.warming.run())]
        self._clients = Pool("127.0.0.1", port, Bounds(idle_s=IDLE_S, max_idle=1024))
        key = keys.internal(settings.SECRET_KEY)
        self._head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self.tell()

    async def close(self) -> None:
        """As the gateway process ends."""
        self._clients.close()
        await end(self.gateway, self._listener, self._protocol, self.gateway.limits.drain_s)
        for task in self._beside:
            task.cancel()
        self.warming.close()
        self.waker.stop()
        self.record()

    # A client

    async def ask(self, model: str, done_at: float) -> None:
        """One request, whose answer is there at that moment, or some time after its engine is."""
        body = msgspec.json.encode({"model": model, "prompt": f"{UNTIL}{done_at!r}", "max_tokens": 1})
        try:
            exchange = await self._clients.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            await exchange.done
        except UpstreamError:
            self.lost += 1
        else:
            self.statuses[exchange.status] += 1

    # What its threads do

    def changed(self) -> None:
        """Something that routing goes by may have: its next glance will see that."""
        if not self._glancing:
            self._glancing = True
            loop = asyncio.get_running_loop()
            loop.call_at(GLANCE_S * (math.floor(loop.time() / GLANCE_S) + 1), self._glance)

    def _glance(self) -> None:
        self._glancing = False
        before, self.watch._mark = self.watch._mark, self.watch._glanced()
        if self.watch._mark != before:
            self.look()

    def look(self) -> None:
        self.before()
        self.watch.look()
        self.looks += 1

    def tell(self) -> None:
        """That it lives, what is in use, and which engines answered."""
        if time.time() - self._told_at < TELL_S:
            return
        self._told_at = time.time()
        self.teller._take(0.0)
        self.teller.flush()

    def record(self) -> None:
        self.gateway.recorder.flush(demand=True)

    def _tell(self, partition: int, generation: int, ok: bool, message: str) -> None:
        self.teller.tell(partition, generation, ok, message)
        asyncio.get_running_loop().call_soon(self._told)

    def _told(self) -> None:
        self._told_at = 0.0
        self.tell()

    async def _wake(self, held: Mapping[str, int]) -> Mapping[str, Standing]:
        self.before()
        began = time.process_time()
        standings = await self.waker.wake(held)  # runs at once: no time passes, nobody else runs
        if len(held) == 1 and not self._known & held.keys():
            self.wake_ms.append((time.process_time() - began) * 1e3)
        self._known = frozenset(held)
        self.wakes += 1
        self.asked(held, standings)
        return standings


async def each(period_s: float, work: Callable[[float], None], goes_on: Callable[[], bool], first: float) -> None:
    """At `first` and each `period_s` after it."""
    at = first
    while goes_on():
        await until(at)
        work(at)
        at += period_s
