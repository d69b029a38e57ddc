"""What the rows of a node say, as pages and programs get it: made when they change. Nothing secret is in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from controlplane.domain import health
from controlplane.domain.types import NodeView
from controlplane.fleet.derived import partition_words
from controlplane.fleet.facts import drain_facts, has_process, node_view, partition_view
from controlplane.fleet.models import Gpu, Node, Partition


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of a node say, and whether it is silent. `facts` lack only figures and ages."""

    facts: dict[str, Any]
    gpus: tuple[dict[str, Any], ...]  # by index
    partitions: tuple[dict[str, Any], ...]  # by name
    since: tuple[float | None, ...]  # by partition: when its phase began
    endpoints: tuple[str, ...]
    running: tuple[int, ...]  # partitions with a process
    counts: tuple[int, int, int]  # GPUs that are assigned, idle, unhealthy
    period_s: float
    templates: dict[Any, bytes] = field(default_factory=dict, compare=False, repr=False)  # node_object's


def shape(node: Node, last_seen: float | None, now: float) -> Shape:
    """`node` with gpus and partitions (and their deployments) prefetched; `last_seen` may be newer than its row's."""
    gpus = sorted(node.gpus.all(), key=lambda gpu: gpu.index)
    partitions = sorted(node.partitions.all(), key=lambda partition: partition.name)
    view = replace(node_view(node, gpus=(), partitions=partitions), last_seen=last_seen)
    facts = {
        "id": node.pk,
        "name": node.name,
        "status": str(health.node_status(view, now, settings.SILENT_AFTER_S)),
        "schedulable": node.schedulable,
        "draining": node.draining,
        "drain": drain_facts(node, partitions),
        "simulated": node.simulated,
        "generation": node.generation,
        "observed_generation": node.observed_generation,
        "labels": node.labels,
        "agent_version": node.agent_version,
        "engine_version": node.engine_version,
        "driver": node.driver,
    }
    return Shape(
        facts=facts,
        gpus=tuple(_gpu(gpu) for gpu in gpus),
        partitions=tuple(_partition(partition, gpus, view, now) for partition in partitions),
        since=tuple(row.phase_since.timestamp() if row.phase_since else None for row in partitions),
        endpoints=tuple(row.endpoint for row in partitions),
        running=tuple(row.pk for row in partitions if has_process(row)),
        counts=_counts(gpus, {row.pk for row in partitions if row.deployment_id is not None}),
        period_s=node.period_s,
    )


def _counts(gpus: list[Gpu], assigned: set[int]) -> tuple[int, int, int]:
    taken = {gpu.pk for gpu in gpus if gpu.partition_id in assigned}
    sick = {gpu.pk for gpu in gpus if gpu.health != "ok" or not gpu.present or gpu.flag}
    return len(taken), sum(1 for gpu in gpus if gpu.pk not in taken | sick), len(sick)


def _gpu(row: Gpu) -> dict[str, Any]:
    return {
        "id": row.pk,
        "uuid": row.uuid,
        "index": row.index,
        "kind": row.kind,
        "name": row.name,
        "memory_bytes": row.memory_bytes,
        "health": row.health,
        "health_detail": row.health_detail,
        "foreign": row.foreign,
        "flag": row.flag,
        "present": row.present,
        "partition": row.partition_id,
    }


def _partition(row: Partition, gpus: list[Gpu], node: NodeView, now: float) -> dict[str, Any]:
    view = replace(partition_view(row, gpus=()), node_last_seen=node.last_seen)
    return {
        "id": row.pk,
        "name": row.name,
        "gpus": [gpu.pk for gpu in gpus if gpu.partition_id == row.pk],
        "deployment": {"id": row.deployment_id, "name": row.deployment.name} if row.deployment else None,
        "overflow": row.overflow,
        **partition_words(row, view, now),
        "generation": row.generation,
        "observed_generation": row.observed_generation,
        "restarts": row.restarts,
        "message": row.message,
        "ready_after_s": row.ready_after_s,
    }
