"""Make-believe agents in virtual time.

Real are their reconciling (workers.simulated_fleet.host), reports and specs as values of the contract, and what the
control plane makes of them. Not real: processes, GPUs, and the HTTP and the broker between agents and control plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import numpy as np

from bench._pool_engines import Serving
from controlplane.fleet import reports
from controlplane.fleet.models import Gpu, Node
from tests.factories import make_node, make_partition
from workers.contract import Phase, ReplicaStatus
from workers.reconcile import Replica
from workers.simulated_fleet.host import Curve, Host

HEARD_EVERY_S, REPORT_S = 4.0, 1.0
PLAIN_EVERY = 4  # each fourth node starts engines from nothing, the others fork them
FORKED_S, PLAIN_S = (2.2, 3.0), (15.0, 19.0)  # about the measured medians, 2.6 and 16.7 s


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


@dataclass
class Standing(Host):
    """Its engines have a port each."""

    ports: dict[int, int] = field(default_factory=dict)  # by partition

    def _status(self, replica: Replica, at: float) -> ReplicaStatus:
        said = super()._status(replica, at)
        at_port = f"http://127.0.0.1:{self.ports[said.partition]}"
        return msgspec.structs.replace(said, endpoint=at_port) if said.pid else said

    def serving(self, partition: int) -> Serving | None:  # type: ignore[override]
        """Who answers there now."""
        replica = self._replicas.get(partition)
        if replica is None or replica.phase not in (Phase.READY, Phase.DRAINING):
            return None
        return Serving(replica.spec.api_key, replica.spec.deployment, self._processes[partition].engine)


class Agents:
    """Each reports when it has something new to say or to hear, at whole seconds; that all are heard is written for
    them together, as the web process does."""

    def __init__(self, nodes: int, gpus: int, now: float) -> None:
        self.hosts: dict[int, Standing] = {}
        self.of: dict[int, Standing] = {}  # by partition
        self.due: dict[int, float] = {}  # when each next has something to say
        self.reports = 0
        self._heard_at = now
        for place in range(nodes):
            row = make_node(f"sim-{place:03d}", gpus=0, instance="", boot="", last_seen=moment(now), simulated=True)
            ready_s = PLAIN_S if place % PLAIN_EVERY == PLAIN_EVERY - 1 else FORKED_S
            host = Standing(row.pk, row.name, gpus, Curve("low", place, ready_after_s=ready_s))
            self.hosts[row.pk] = host
            self._report(row.pk, now)
        for row in Node.objects.order_by("pk"):
            for gpu in Gpu.objects.filter(node=row).order_by("index"):
                made = make_partition(row, gpus=[gpu], name=f"p{gpu.index}")
                self.of[made.pk] = self.hosts[row.pk]

    def serving(self, partition: int) -> Serving | None:
        return self.of[partition].serving(partition)

    def reach(self, ports: dict[int, int]) -> None:
        """Where their engines listen."""
        for host in self.hosts.values():
            host.ports = ports

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


def _ready_at(host: Standing) -> list[float]:
    """When its engines that are starting will be there."""
    return [
        one.since + host._processes[partition].ready_s
        for partition, one in host._replicas.items()
        if one.phase is Phase.STARTING
    ]
