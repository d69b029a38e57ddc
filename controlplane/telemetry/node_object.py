"""One node as pages and programs get it: its shape, made when its rows change, and the figures of each report. Null
means unknown, never zero; nothing secret is in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from django.conf import settings

from controlplane.domain import health
from controlplane.domain.types import NodeView
from controlplane.fleet import verified
from controlplane.fleet.facts import drain_facts, has_process, node_view, partition_view
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.telemetry.columns import known
from controlplane.telemetry.latest import Latest
from workers.contract import DeviceSample, HostSample

Fill = Literal["utilization", "kv", "memory", "temperature", "power"]

_NO_SAMPLE = DeviceSample(uuid="")
_CELLS = {
    "utilization": ("utilization", 1000),
    "memory": ("memory_used_bytes", 2.0**-20),
    "temperature": ("temperature_c", 1),
    "power": ("power_w", 1),
}


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


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A shape with the figures of the last report; `last_seen` tells one report from another."""

    shape: Shape
    last_seen: float | None
    skew_s: float | None
    figures: Latest | None

    def at(self, now: float, *, endpoints: bool = False) -> dict[str, Any]:
        """The whole node, with its ages at `now`."""
        shape, figures = self.shape, self.figures
        return {
            **shape.facts,
            "age_s": _age(self.last_seen, now),
            "drain": _drain(shape, figures),
            "period_s": figures.period_s if figures else shape.period_s,
            "skew_s": figures.skew_s if figures and figures.skew_s is not None else self.skew_s,
            "host": _host(figures.host) if figures and figures.host else None,
            "gpus": [_gpu_at(gpu, figures) for gpu in shape.gpus],
            "partitions": [
                {
                    **facts,
                    "since_s": _age(since, now),
                    "engine": _engine(figures, facts["id"]),
                    "memory_bytes": figures.process_bytes.get(facts["id"]) if figures else None,
                    **({"endpoint": endpoint or None} if endpoints else {}),
                }
                for facts, since, endpoint in zip(shape.partitions, shape.since, shape.endpoints, strict=True)
            ],
        }

    def cells(self, fill: str) -> list[int | None]:
        """One figure as whole numbers. Of each GPU: utilization (in thousandths), memory (MiB), temperature (degrees C)
        and power (W); of each partition: kv (in thousandths)."""
        figures = self.figures
        if fill == "kv":
            engines = figures.engines if figures else {}
            used = (engines.get(facts["id"]) for facts in self.shape.partitions)
            return [_whole(engine.kv_usage, 1000) if engine else None for engine in used]
        name, scale = _CELLS[fill]
        devices = figures.devices if figures else {}
        return [_whole(getattr(devices.get(gpu["uuid"], _NO_SAMPLE), name), scale) for gpu in self.shape.gpus]


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


def _drain(shape: Shape, figures: Latest | None) -> dict[str, Any] | None:
    """With the requests that its engines still serve, as far as they were sampled."""
    facts: dict[str, Any] | None = shape.facts["drain"]
    if facts is None:
        return None
    engines = [figures.engines.get(pk) for pk in shape.running] if figures else []
    loads = [engine.running + (engine.waiting or 0.0) for engine in engines if engine and engine.running is not None]
    return {**facts, "in_flight": int(sum(loads)) if loads else None}


def _host(host: HostSample) -> dict[str, Any]:
    return {
        "cpu_utilization": known(host.cpu_utilization),
        "cpu_count": host.cpu_count,
        "memory_bytes": host.memory_bytes,
        "memory_used_bytes": host.memory_used_bytes,
        "disk_free_bytes": host.disk_free_bytes,
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {
        "id": gpu.pk,
        "uuid": gpu.uuid,
        "index": gpu.index,
        "kind": gpu.kind,
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "health": gpu.health,
        "health_detail": gpu.health_detail,
        "foreign": gpu.foreign,
        "flag": gpu.flag,
        "present": gpu.present,
        "partition": gpu.partition_id,
    }


def _gpu_at(facts: dict[str, Any], figures: Latest | None) -> dict[str, Any]:
    sample = figures.devices.get(facts["uuid"], _NO_SAMPLE) if figures else _NO_SAMPLE
    return {
        **facts,
        "memory_used_bytes": sample.memory_used_bytes,
        "utilization": known(sample.utilization),
        "power_w": known(sample.power_w),
        "temperature_c": known(sample.temperature_c),
        "sm_clock_mhz": known(sample.sm_clock_mhz),
    }


def _partition(row: Partition, gpus: list[Gpu], node: NodeView, now: float) -> dict[str, Any]:
    view = replace(partition_view(row, gpus=()), node_last_seen=node.last_seen)
    return {
        "id": row.pk,
        "name": row.name,
        "gpus": [gpu.pk for gpu in gpus if gpu.partition_id == row.pk],
        "deployment": {"id": row.deployment_id, "name": row.deployment.name} if row.deployment else None,
        "role": row.role or None,
        "overflow": row.overflow,
        "status": str(health.partition_status(view, now, settings.SILENT_AFTER_S)),
        "phase": row.phase or None,
        "confirmed": health.is_confirmed(view),
        "verified": verified.is_verified(row),
        "verify_message": verified.message_of(row),
        "generation": row.generation,
        "observed_generation": row.observed_generation,
        "restarts": row.restarts,
        "message": row.message,
        "ready_after_s": row.ready_after_s,
    }


def _engine(figures: Latest | None, partition: int) -> dict[str, float | None] | None:
    engine = figures.engines.get(partition) if figures else None
    return msgspec.structs.asdict(engine) if engine else None


def _whole(value: float | None, scale: float) -> int | None:
    value = known(value)
    return None if value is None else round(value * scale)


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 3)
