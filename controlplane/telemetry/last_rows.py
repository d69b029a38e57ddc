"""The last recorded figures of nodes, for those that Valkey has none of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model, OuterRef, Subquery

from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.telemetry.latest import EngineFigures, Latest
from controlplane.telemetry.models import EngineSample, GpuSample
from workers.contract import DeviceSample, Phase

_ENGINE = ("running", "waiting", "kv_usage", "prompt_tps", "generation_tps", "ttft_ms", "itl_ms")


def read(nodes: Sequence[Node]) -> dict[int, Latest]:
    """By node. Four queries, however many nodes; none for no node."""
    if not nodes:
        return {}
    devices: dict[int, dict[str, DeviceSample]] = {}
    for gpu, row in _last(GpuSample, Gpu.objects.filter(node__in=nodes), "gpu"):
        devices.setdefault(gpu.node_id, {})[gpu.uuid] = DeviceSample(
            uuid=gpu.uuid,
            utilization=row.utilization,
            memory_used_bytes=row.memory_used_bytes,
            power_w=row.power_w,
            temperature_c=row.temperature_c,
        )
    engines: dict[int, dict[int, EngineFigures]] = {}
    running = Partition.objects.filter(node__in=nodes).exclude(phase__in=("", Phase.EXITED))
    for partition, row in _last(EngineSample, running, "partition"):
        figures = EngineFigures(**{name: getattr(row, name) for name in _ENGINE})
        engines.setdefault(partition.node_id, {})[partition.pk] = figures
    return {
        node.pk: Latest(
            node=node.pk,
            seen=node.last_seen.timestamp(),
            period_s=node.period_s,
            devices=devices.get(node.pk, {}),
            engines=engines.get(node.pk, {}),
        )
        for node in nodes
    }


def _last(samples: type[Model], owners: Any, name: str) -> list[tuple[Any, Any]]:
    """Each owner with its newest sample, found through the (owner, at) index."""
    newest = samples.objects.filter(**{name: OuterRef("pk")}).order_by("-at").values("pk")[:1]
    owners = list(owners.annotate(last_sample=Subquery(newest)).filter(last_sample__isnull=False))
    rows = samples.objects.in_bulk([owner.last_sample for owner in owners])
    return [(owner, rows[owner.last_sample]) for owner in owners if owner.last_sample in rows]
