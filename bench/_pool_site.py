"""A simulated fleet in virtual time: make-believe agents, and a stand-in for what a gateway does to the pool.

Real are the control plane's rows and services, the agents' own reconciling (workers.simulated_fleet.host), reports and
specs as values of the contract, the gateway's counting of demand, what it writes of use, and its asking to wake models.
Not real: processes, GPUs, HTTP, Celery, the gateway's event loop and its routing; a request is served from the moment
that a report says its engine is ready."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from django.db.models import F

from controlplane.fleet import pool_use, reports, verified
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.fleet.services import waking
from controlplane.fleet.services.waking import Ask, State
from controlplane.gateway.demand import Demand, Minute, Minutes
from controlplane.gateway.models import DemandMinute
from tests.factories import make_node, make_partition
from workers.contract import Phase
from workers.simulated_fleet.host import Curve, Host

GATEWAY = "simulated:1"
HEARD_EVERY_S, REPORT_S = 4.0, 1.0
PLAIN_EVERY = 4  # each fourth node starts engines from nothing, the others fork them
FORKED_S, PLAIN_S = (2.2, 3.0), (15.0, 19.0)  # about the measured medians, 2.6 and 16.7 s


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


class Agents:
    """Each reports when it has something new to say or to hear, at whole seconds; that all are heard is written for
    them together, as the web process does."""

    def __init__(self, nodes: int, gpus: int, now: float) -> None:
        self.hosts: dict[int, Host] = {}
        self.due: dict[int, float] = {}  # when each next has something to say
        self.reports = 0
        self._heard_at = now
        for place in range(nodes):
            row = make_node(f"sim-{place:03d}", gpus=0, instance="", boot="", last_seen=moment(now), simulated=True)
            ready_s = PLAIN_S if place % PLAIN_EVERY == PLAIN_EVERY - 1 else FORKED_S
            host = Host(row.pk, row.name, gpus, Curve("low", place, ready_after_s=ready_s))
            host.endpoint = "http://127.0.0.1:9"
            self.hosts[row.pk] = host
            self._report(row.pk, now)
        for row in Node.objects.order_by("pk"):
            for gpu in Gpu.objects.filter(node=row).order_by("index"):
                make_partition(row, gpus=[gpu], name=f"p{gpu.index}")

    def hear(self, now: float) -> None:
        """Before anybody looks at the fleet: nobody is silent."""
        if now - self._heard_at >= HEARD_EVERY_S:
            Node.objects.filter(last_seen__lt=moment(now)).update(last_seen=moment(now))
            self._heard_at = now

    def look(self, now: float) -> None:
        """Whose spec is newer than what its agent holds: it will hear with its next report."""
        for node, generation in Node.objects.values_list("pk", "generation"):
            spec = self.hosts[node].spec
            if spec is None or spec.generation < generation:
                self.due[node] = min(now, self.due.get(node, now))

    def step(self, now: float) -> None:
        """Those report that have something new to say, or to hear."""
        for node in sorted(node for node, at in self.due.items() if at <= now):
            at = self._report(node, now)
            if at is None:
                del self.due[node]
            else:
                self.due[node] = at

    def next_at(self) -> float | None:
        return min(self.due.values(), default=None)

    def _report(self, node: int, now: float) -> float | None:
        """When it next has something to say; None: nothing by itself. The reports between say nothing new."""
        host = self.hosts[node]
        said = host.report(now)
        reply = reports.receive(said, node=Node.objects.defer("spec").get(pk=node), now=moment(now))
        host.take(reply)
        self.reports += 1
        wanted = {(one.partition, one.generation) for one in host.spec.replicas} if host.spec else set()
        if reply.spec is not None or {(one.partition, one.generation) for one in said.replicas} != wanted:
            return now + REPORT_S
        phases = {one.phase for one in said.replicas}
        if phases <= {Phase.READY}:
            return None
        if phases <= {Phase.READY, Phase.STARTING}:
            return max(now + REPORT_S, float(np.ceil(min(_ready_at(host)))))
        return now + REPORT_S

    def residents(self) -> dict[int, str]:
        """By partition: the deployment whose engine is there, by the agents themselves."""
        return {one.partition: one.deployment for host in self.hosts.values() for one in host._statuses(host._last)}


def _ready_at(host: Host) -> list[float]:
    """When its engines that are starting will be there."""
    return [
        one.since + host._processes[partition].ready_s
        for partition, one in host._replicas.items()
        if one.phase is Phase.STARTING
    ]


@dataclass(slots=True)
class Held:
    """Bursts of one model that wait: (when they came, when they end)."""

    bursts: list[tuple[float, float]] = field(default_factory=list)


class Gateway:
    """What reaches the pool of a gateway: counts, beats, and asking for models that nothing serves."""

    def __init__(self) -> None:
        self.demand = Demand()
        self.held: dict[str, Held] = {}
        self.served: set[str] = set()
        self.standings: Mapping[str, waking.Standing] = {}
        self.wake_ms: list[float] = []  # CPU, of one model's first asking
        self._minutes: Minutes = {}
        self._beat_at = 0.0
        self._fresh: set[str] = set()

    def come(self, name: str, now: float, until: float) -> bool:
        """Whether it is served at once."""
        self.demand.begin(name, now)
        if name in self.served:
            return True
        if name not in self.held:
            self._fresh.add(name)
        self.held.setdefault(name, Held()).bursts.append((now, until))
        return False

    def end(self, name: str, now: float) -> None:
        self.demand.end(name, now, prompt=0, completion=0, failed=False)

    def tell(self, now: float) -> None:
        """That it lives, and what is in use."""
        uses = self.demand.uses()
        if uses:
            pool_use.write(GATEWAY, uses)
        if now - self._beat_at >= 2.0:
            verified.beat(GATEWAY, "", moment(now))
            self._beat_at = now

    def ask(self, names: Iterable[str], now: float) -> None:
        """As gateway.waker does: all of them in one call."""
        asks = {name: Ask(len(self.held[name].bursts)) for name in names if name in self.held}
        if not asks:
            return
        began = time.process_time()
        self.standings = {**self.standings, **waking.wake(asks, now=moment(now))}
        if len(asks) == 1 and self._fresh.issuperset(asks):
            self.wake_ms.append((time.process_time() - began) * 1e3)
        self._fresh -= set(asks)

    def look(self) -> list[tuple[str, Held]]:
        """Read anew who is served; whose wait is over by that."""
        ready = Partition.objects.filter(
            phase=Phase.READY.value, observed_generation=F("generation"), deployment__isnull=False
        )
        self.served = set(ready.values_list("deployment__name", flat=True))
        over = [name for name in self.held if name in self.served]
        return [(name, self.held.pop(name)) for name in over]

    def waiting(self) -> int:
        """Models for which no slot was found."""
        told = self.standings
        return sum(name in told and told[name].state is State.WAITING for name in self.held)

    def record(self, now: float) -> None:
        """Write the minutes that are over: what gateway.records writes one by one, at once."""
        for key, minute in self.demand.take(now).items():
            self._minutes.setdefault(key, Minute()).add(minute)
        over = [key for key in self._minutes if key[1] + 60 <= now]
        rows = [
            DemandMinute(
                deployment=name, minute=moment(at), arrivals=one.arrivals, active_s=one.active_s,
                peak_in_flight=one.peak_in_flight,
            )
            for name, at in over for one in [self._minutes.pop((name, at))]
        ]  # fmt: skip
        DemandMinute.objects.bulk_create(rows, batch_size=500)
