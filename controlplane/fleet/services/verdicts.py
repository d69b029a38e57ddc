"""What became of a start: by what the agent says of the slot, and by what it does not."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings

from controlplane.audit.models import AuditEvent
from controlplane.domain.health import is_silent
from controlplane.fleet.models import Activation, Partition
from workers.contract import Phase


def is_ready(partition: Partition, now: datetime) -> bool:
    """Confirmed, by a node that is heard."""
    there = partition.phase == Phase.READY and partition.observed_generation == partition.generation
    return there and partition.deployment_id is not None and not _is_silent(partition, now)


def fault(activation: Activation, partition: Partition | None, now: datetime) -> str | None:
    """Why this start will come to nothing; None while it may yet. `partition` with its node and GPUs."""
    if partition is None or partition.deployment_id != activation.deployment_id:
        return "its slot was given to something else"
    if _is_silent(partition, now):
        return f"node {partition.node.name} fell silent"
    if partition.node.draining or partition.node.revoked:
        return f"node {partition.node.name} is to run nothing"
    if lost := [gpu for gpu in partition.gpus.all() if not gpu.present or gpu.health == "lost"]:
        return f"{lost[0]} is lost"
    if (died := _how_it_died(activation, partition)) is not None:
        return died
    if activation.placed_at and (now - activation.placed_at).total_seconds() > settings.POOL_START_S:
        return f"it was not ready within {settings.POOL_START_S:.0f} s"
    return None


def _how_it_died(activation: Activation, partition: Partition) -> str | None:
    """Of the engine of this very start: the trail tells it with its last words."""
    name = activation.deployment.name
    events = AuditEvent.objects.filter(
        subject_type="partition", subject_id=partition.pk, verb="engine-exited", at__gte=activation.placed_at
    ).order_by("-pk")
    for after, detail in events.values_list("after", "detail")[:5]:
        facts: dict[str, Any] = after or {}
        if facts.get("deployment") == name:
            return _told(facts.get("code"), detail)
    if partition.observed_generation == partition.generation and partition.restarts:
        return partition.message or "its engine ended before it was ready"
    return None


def _told(code: object, detail: str) -> str:
    """The last line that says something of an error, else the last one."""
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines
    ended = "its engine ended" + (f" with code {code}" if code is not None else "")
    return f"{ended}: {telling[-1][:180]}" if telling else ended


def _is_silent(partition: Partition, now: datetime) -> bool:
    seen = partition.node.last_seen
    return is_silent(seen.timestamp() if seen else None, now.timestamp(), settings.SILENT_AFTER_S)
