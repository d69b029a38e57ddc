"""Node reports for the tests of this folder."""

from __future__ import annotations

from typing import Any

from controlplane.fleet.models import Node, Partition
from workers.contract import DeviceSample, EngineSample, HostSample, NodeReport, Phase, ReplicaStatus, Role

T0 = 1_800_000_000.0  # a multiple of the sampling window


def sample(uuid: str, utilization: float | None = 0.5, **figures: Any) -> DeviceSample:
    return DeviceSample(uuid=uuid, utilization=utilization, **figures)


def replica(partition: Partition | int, *, pid: int = 100, deployment: str = "m", **figures: Any) -> ReplicaStatus:
    """A ready engine with these figures."""
    return ReplicaStatus(
        partition=partition if isinstance(partition, int) else partition.pk,
        deployment=deployment,
        role=Role.DECODE,
        generation=1,
        phase=Phase.READY,
        pid=pid,
        memory_bytes=1_000_000,
        sample=EngineSample(**figures),
    )


def report(node: Node | int, seq: int, *, boot: str = "boot-1", **fields: Any) -> NodeReport:
    return NodeReport(
        node=node if isinstance(node, int) else node.pk,
        instance="i",
        boot=boot,
        seq=seq,
        at=fields.pop("at", T0 + seq),
        generation=1,
        host=HostSample(cpu_utilization=0.25, cpu_count=4, memory_bytes=100, memory_used_bytes=40),
        **fields,
    )
