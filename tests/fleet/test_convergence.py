"""Whatever is lost, repeated or late in between, a node ends with the spec that its rows ask for."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controlplane.audit.services import Actor
from controlplane.fleet import reports, selectors, services
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.tasks import sweep
from tests.factories import make_deployment, make_node, make_partition
from tests.fleet.reporting import report_of
from workers.contract import NodeReport, NodeSpec, Phase, ReplicaSpec, ReplicaStatus, ReportReply

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
PARTITIONS = 2
NODE_BACKUP = (
    "spec", "generation", "observed_generation", "schedulable", "draining", "cordoned_before", "drain_began_at",
    "drain_deadline_at", "boot", "last_seq",
)  # fmt: skip
PARTITION_BACKUP = ("deployment", "role", "engine_key", "generation", "observed_generation", "observed_role", "phase")
OPERATIONS = st.one_of(
    st.tuples(st.just("assign"), st.integers(0, PARTITIONS - 1), st.sampled_from(["prefill", "decode", "aggregated"])),
    st.tuples(st.just("release"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("edit-by-hand"), st.integers(0, PARTITIONS - 1), st.sampled_from(["prefill", "decode"])),
    st.tuples(st.just("drain"), st.sampled_from([None, 0.0, 30.0, 600.0])),
    st.tuples(st.sampled_from(["cordon", "uncordon", "cancel-drain", "sweep", "restart-web", "restart-agent"])),
    st.tuples(st.sampled_from(["back-up", "restore"])),
    st.tuples(st.just("report"), st.sampled_from(["heard", "request-lost", "reply-lost", "reply-late"])),
    st.tuples(st.just("repeat-report"), st.integers(0, 3)),
)


@dataclass
class FakeAgent:
    """Holds the newest spec it got and runs it at once."""

    node: Node
    held: NodeSpec | None = None
    boot: int = 1
    seq: int = 0
    sent: list[NodeReport] = field(default_factory=list)
    late: list[ReportReply] = field(default_factory=list)

    def take(self, reply: ReportReply) -> None:
        if reply.spec and (self.held is None or reply.spec.generation > self.held.generation):
            self.held = reply.spec

    def report(self) -> NodeReport:
        self.seq += 1
        replicas = self.held.replicas if self.held else ()
        said = report_of(
            self.node, instance="i", boot=f"boot-{self.boot}", seq=self.seq,
            generation=self.held.generation if self.held else 0,
            replicas=tuple(_ready(replica) for replica in replicas),
        )  # fmt: skip
        self.sent.append(said)
        return said


def _ready(replica: ReplicaSpec) -> ReplicaStatus:
    return ReplicaStatus(
        partition=replica.partition,
        deployment=replica.deployment,
        role=replica.role,
        generation=replica.generation,
        phase=Phase.READY,
        pid=replica.partition + 1000,
        endpoint=f"http://127.0.0.1:{18100 + replica.partition % 100}",
    )


class Fleet:
    def __init__(self) -> None:
        Partition.objects.all().delete()
        Node.objects.all().delete()
        Deployment.objects.all().delete()
        reports.forget()
        self.node = make_node(instance="i", boot="")
        self.partitions = [make_partition(self.node) for _ in range(PARTITIONS)]
        self.deployment = make_deployment()
        self.agent = FakeAgent(self.node)
        self.generations: list[int] = []
        self.was_schedulable = True
        self.back_up()

    def do(self, operation: tuple) -> None:
        getattr(self, operation[0].replace("-", "_"))(*operation[1:])
        self.generations.append(Node.objects.get(pk=self.node.pk).generation)

    def assign(self, number: int, role: str) -> None:
        if Node.objects.get(pk=self.node.pk).schedulable:
            services.assign(self.partitions[number].pk, deployment_id=self.deployment.pk, role=role, actor=ACTOR)

    def release(self, number: int) -> None:
        services.release(self.partitions[number].pk, actor=ACTOR)

    def edit_by_hand(self, number: int, role: str) -> None:
        Partition.objects.filter(pk=self.partitions[number].pk, deployment__isnull=False).update(role=role)

    def drain(self, deadline_s: float | None) -> None:
        before = Node.objects.get(pk=self.node.pk)
        self.was_schedulable = self.was_schedulable if before.draining else before.schedulable
        services.drain(self.node.pk, actor=ACTOR, deadline_s=deadline_s)

    def cancel_drain(self) -> None:
        """Whatever came between, it goes back to what it was before the drain."""
        drained = Node.objects.get(pk=self.node.pk).draining
        node = services.cancel_drain(self.node.pk, actor=ACTOR)
        assert not node.draining
        assert not drained or node.schedulable == self.was_schedulable

    def cordon(self) -> None:
        services.cordon(self.node.pk, actor=ACTOR)

    def uncordon(self) -> None:
        services.uncordon(self.node.pk, actor=ACTOR)

    def sweep(self) -> None:
        sweep()

    def restart_web(self) -> None:
        reports.forget()

    def restart_agent(self) -> None:
        self.agent.boot += 1  # and goes on counting, as by the clock

    def back_up(self) -> None:
        self.was_schedulable_then = self.was_schedulable
        self.backup = [
            *Node.objects.filter(pk=self.node.pk).values("id", *NODE_BACKUP),
            *Partition.objects.order_by("pk").values("id", *PARTITION_BACKUP),
        ]

    def restore(self) -> None:
        """The database goes back to the backup, and the agent's next report comes before anybody changes anything."""
        self.was_schedulable = self.was_schedulable_then
        node, *partitions = self.backup
        Node.objects.filter(pk=node["id"]).update(**node)
        for partition in partitions:
            Partition.objects.filter(pk=partition["id"]).update(**partition)
        self.generations.clear()
        self.report("reply-lost")

    def report(self, fate: str) -> None:
        said = self.agent.report()
        if fate == "request-lost":
            return
        reply = self._receive(said)
        if fate == "heard":
            self.agent.take(reply)
        elif fate == "reply-late":
            self.agent.late.append(reply)

    def repeat_report(self, back: int) -> None:
        """A proxy sends an old one again; and a late answer arrives."""
        same_boot = [said for said in self.agent.sent if said.boot == f"boot-{self.agent.boot}"]
        if len(same_boot) > back:
            self._receive(same_boot[-1 - back])
        if self.agent.late:
            self.agent.take(self.agent.late.pop(0))

    def _receive(self, said: NodeReport) -> ReportReply:
        return reports.receive(said, node=Node.objects.get(pk=self.node.pk), now=timezone.now())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(history=[("assign", 0, "prefill"), ("back-up",), ("assign", 0, "decode"), ("report", "heard"), ("restore",)])
@example(history=[("assign", 0, "prefill"), ("drain", 30.0), ("report", "heard"), ("drain", 600.0), ("cancel-drain",)])
@example(history=[("assign", 0, "prefill"), ("report", "reply-late"), ("release", 0), ("repeat-report", 0)])
@given(history=st.lists(OPERATIONS, max_size=14))
def test_any_history_converges(history: list[tuple]) -> None:
    fleet = Fleet()
    for operation in history:
        fleet.do(operation)
        assert fleet.generations == sorted(fleet.generations)

    fleet.sweep()
    for _ in range(3):
        fleet.report("heard")

    node = Node.objects.get(pk=fleet.node.pk)
    wanted = {
        partition.pk: partition.role
        for partition in Partition.objects.filter(deployment__isnull=False)
        if not node.draining
    }
    assert fleet.agent.held == msgspec.convert(node.spec, NodeSpec)
    assert {replica.partition: replica.role.value for replica in fleet.agent.held.replicas} == wanted
    assert {row.partition: row.role for row in selectors.routing_rows(timezone.now())} == wanted
    assert node.observed_generation == node.generation
    deadline = node.drain_deadline_at and (node.drain_deadline_at - node.drain_began_at).total_seconds()
    assert fleet.agent.held.drain_s == pytest.approx(deadline, abs=0.001)
    assert node.draining or not (node.drain_began_at or node.drain_deadline_at or node.cordoned_before)
