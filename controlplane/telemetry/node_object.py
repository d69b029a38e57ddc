"""One node as pages and programs get it. Null means unknown, never zero; nothing secret is in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
from django.conf import settings

from controlplane.domain import health
from controlplane.domain.types import NodeView
from controlplane.fleet import verified
from controlplane.fleet.facts import drain_facts, has_process, node_view, partition_view
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.rates import known
from workers.contract import DeviceSample, HostSample

_NO_SAMPLE = DeviceSample(uuid="")


@dataclass(frozen=True, slots=True)
class LiveNode:
    """`facts` hold no ages, so that equal facts mean that nothing changed; `last_seen` tells whether it was heard."""

    facts: dict[str, Any]
    last_seen: float | None
    since: tuple[float | None, ...]  # by partition: when its phase began
    endpoints: tuple[str, ...]

    def at(self, now: float, *, endpoints: bool = False) -> dict[str, Any]:
        """The facts with their ages at `now`."""
        partitions = [
            {**facts, "since_s": _age(since, now), **({"endpoint": endpoint or None} if endpoints else {})}
            for facts, since, endpoint in zip(self.facts["partitions"], self.since, self.endpoints, strict=True)
        ]
        return {**self.facts, "age_s": _age(self.last_seen, now), "partitions": partitions}


def build(node: Node, figures: Latest | None, now: float) -> LiveNode:
    """`node` with gpus and partitions (and their deployments) prefetched."""
    gpus = list(node.gpus.all())
    partitions = sorted(node.partitions.all(), key=lambda partition: partition.name)
    view = _heard(node_view(node, gpus=(), partitions=partitions), figures)
    facts = {
        "id": node.pk,
        "name": node.name,
        "status": str(health.node_status(view, now, settings.SILENT_AFTER_S)),
        "schedulable": node.schedulable,
        "draining": node.draining,
        "drain": _drain(node, partitions, figures),
        "period_s": figures.period_s if figures else node.period_s,
        "skew_s": figures.skew_s if figures and figures.skew_s is not None else node.clock_skew_s,
        "simulated": node.simulated,
        "generation": node.generation,
        "observed_generation": node.observed_generation,
        "labels": node.labels,
        "agent_version": node.agent_version,
        "engine_version": node.engine_version,
        "driver": node.driver,
        "host": _host(figures.host) if figures and figures.host else None,
        "gpus": [_gpu(gpu, figures) for gpu in sorted(gpus, key=lambda gpu: gpu.index)],
        "partitions": [_partition(partition, gpus, view, figures, now) for partition in partitions],
    }
    return LiveNode(
        facts=facts,
        last_seen=view.last_seen,
        since=tuple(row.phase_since.timestamp() if row.phase_since else None for row in partitions),
        endpoints=tuple(row.endpoint for row in partitions),
    )


def _heard(view: NodeView, figures: Latest | None) -> NodeView:
    """The row's last_seen is written in batches; the figures may be newer."""
    seen = [at for at in (view.last_seen, figures.seen if figures else None) if at is not None]
    return replace(view, last_seen=max(seen, default=None))


def _drain(node: Node, partitions: list[Partition], figures: Latest | None) -> dict[str, Any] | None:
    """With the requests that its engines still serve, as far as they were sampled."""
    facts = drain_facts(node, partitions)
    if facts is None:
        return None
    engines = [figures.engines.get(row.pk) for row in partitions if has_process(row)] if figures else []
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


def _gpu(gpu: Gpu, figures: Latest | None) -> dict[str, Any]:
    sample = figures.devices.get(gpu.uuid, _NO_SAMPLE) if figures else _NO_SAMPLE
    return {
        "id": gpu.pk,
        "uuid": gpu.uuid,
        "index": gpu.index,
        "kind": gpu.kind,
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "memory_used_bytes": sample.memory_used_bytes,
        "utilization": known(sample.utilization),
        "power_w": known(sample.power_w),
        "temperature_c": known(sample.temperature_c),
        "sm_clock_mhz": known(sample.sm_clock_mhz),
        "health": gpu.health,
        "health_detail": gpu.health_detail,
        "foreign": gpu.foreign,
        "present": gpu.present,
        "partition": gpu.partition_id,
    }


def _partition(row: Partition, gpus: list[Gpu], node: NodeView, figures: Latest | None, now: float) -> dict[str, Any]:
    view = replace(partition_view(row, gpus=()), node_last_seen=node.last_seen)
    engine = figures.engines.get(row.pk) if figures else None
    return {
        "id": row.pk,
        "name": row.name,
        "gpus": [gpu.pk for gpu in sorted(gpus, key=lambda gpu: gpu.index) if gpu.partition_id == row.pk],
        "deployment": {"id": row.deployment_id, "name": row.deployment.name} if row.deployment else None,
        "role": row.role or None,
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
        "engine": _engine(engine) if engine else None,
        "memory_bytes": figures.process_bytes.get(row.pk) if figures else None,
    }


def _engine(figures: msgspec.Struct) -> dict[str, float | None]:
    return msgspec.structs.asdict(figures)


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 3)
