"""What became of a start, or of an engine that was ready: by what the agent says of the slot, and what it does not."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.conf import settings

from controlplane.audit.models import AuditEvent
from controlplane.domain.health import is_crash_looping, is_silent
from controlplane.fleet.facts import has_process, partition_view
from controlplane.fleet.models import Activation, Partition
from controlplane.fleet.services.failures import GIVEN_AWAY
from workers.contract import Phase

READY_VERBS = ("engine-ready", "engine-woke")
# Code in a traceback, and how vLLM's server process ends once its engine's process has, which said what was wrong.
_SAYS_NOTHING = re.compile(r'^(raise |File ")|see (the )?root cause above|see stack trace', re.IGNORECASE)
GONE_S = 60.0  # a node that is silent for so long is not waited for


def is_ready(partition: Partition, now: datetime) -> bool:
    """Confirmed, by a node that is heard."""
    there = partition.phase == Phase.READY and partition.observed_generation == partition.generation
    return there and partition.deployment_id is not None and not _is_silent(partition, now)


def was_ready(activation: Activation) -> bool:
    """Whether its engines have been ready since it was placed, by the trail, whatever has their slots now."""
    slots = {pk for pk in (activation.partition_id, activation.partner_id) if pk is not None}
    events = AuditEvent.objects.filter(subject_type="partition", subject_id__in=slots, verb__in=READY_VERBS)
    since = events.filter(at__gte=activation.placed_at).values_list("subject_id", "after") if slots else ()
    name = activation.deployment.name
    return bool(slots) and {pk for pk, after in since if (after or {}).get("deployment") == name} == slots


def fault(activation: Activation, partition: Partition | None, now: datetime) -> str | None:
    """Why this start will come to nothing; None while it may yet. `partition` with its node and GPUs."""
    if partition is None or partition.deployment_id != activation.deployment_id:
        return GIVEN_AWAY
    if _is_silent(partition, now):
        return f"node {partition.node.name} fell silent"
    if partition.node.draining or partition.node.revoked:
        return f"node {partition.node.name} is to run nothing"
    if (lost := _lost_gpu(partition)) is not None:
        return lost
    if (died := _how_it_died(activation, partition)) is not None:
        return died
    if activation.placed_at and (now - activation.placed_at).total_seconds() > settings.POOL_START_S:
        return _too_long()
    return None


def gone(partition: Partition, now: datetime) -> str | None:
    """Why no engine will serve there for some time, whatever its model does: the node, or a GPU. None while there may
    be one, or one still has requests to end. `partition` with its node and GPUs."""
    node = partition.node
    if _is_silent(partition, now, GONE_S):
        return f"node {node.name} has been silent for more than {GONE_S:.0f} s"
    if (node.draining or node.revoked) and not has_process(partition):
        return f"node {node.name} is to run nothing"
    return _lost_gpu(partition)


def broken(partition: Partition, now: datetime) -> str | None:
    """Why the engine, which has been ready, does not come back by itself. None while it serves, or its agent may yet
    mend that: an engine that ended is started again by it, and once or twice is no reason to give up its slot."""
    if is_crash_looping(partition_view(partition)):
        name = partition.deployment.name if partition.deployment else ""
        why = _last_words(partition, name, None) or partition.message
        return f"it ended {partition.restarts} times in a row{f': {why}' if why else ''}"
    since = partition.phase_since if partition.phase == Phase.STARTING else None
    if since is not None and (now - since).total_seconds() > settings.POOL_START_S:
        return _too_long()
    return None


def _too_long() -> str:
    return f"it was not ready within {settings.POOL_START_S:.0f} s"


def _lost_gpu(partition: Partition) -> str | None:
    lost = [gpu for gpu in partition.gpus.all() if not gpu.present or gpu.health == "lost"]
    return f"{lost[0]} is lost" if lost else None


def _how_it_died(activation: Activation, partition: Partition) -> str | None:
    """Of the engine of this very start."""
    if (told := _last_words(partition, activation.deployment.name, activation.placed_at)) is not None:
        return told
    if partition.observed_generation == partition.generation and partition.restarts:
        return partition.message or "its engine ended before it was ready"
    return None


def _last_words(partition: Partition, name: str, since: datetime | None) -> str | None:
    """Of the deployment's engine that ended there last: the trail keeps them."""
    events = AuditEvent.objects.filter(subject_type="partition", subject_id=partition.pk, verb="engine-exited")
    if since is not None:
        events = events.filter(at__gte=since)
    for after, detail in events.order_by("-pk").values_list("after", "detail")[:5]:
        facts: dict[str, Any] = after or {}
        if facts.get("deployment") == name:
            return _told(facts.get("code"), detail)
    return None


def _told(code: object, detail: str) -> str:
    """The last line that says something of an error and does not only point to one above, else the last one."""
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    telling = [line for line in errors if not _SAYS_NOTHING.search(line)] or errors or lines
    ended = "its engine ended" + (f" with code {code}" if code is not None else "")
    return f"{ended}: {telling[-1][:180]}" if telling else ended


def _is_silent(partition: Partition, now: datetime, after_s: float | None = None) -> bool:
    seen = partition.node.last_seen
    after_s = settings.SILENT_AFTER_S if after_s is None else max(after_s, settings.SILENT_AFTER_S)
    return is_silent(seen.timestamp() if seen else None, now.timestamp(), after_s)
