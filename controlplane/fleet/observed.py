"""Writes what a report says of GPUs and engines to their rows, and says which of it is news to people.

What an agent sends is checked for shape by the contract; here it is cut to what the columns hold, since SQLite would
take anything and PostgreSQL would fail the whole report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.db.models import Model

from controlplane.domain.health import CRASH_LOOP_AFTER
from controlplane.fleet.models import Gpu, Node, Partition
from workers.contract import Device, DeviceSample, NodeReport, Phase, ReplicaStatus

LOG_TAIL = 16_384  # characters of an engine's last words that the audit trail keeps
LARGEST = 2**31 - 1
LARGEST_BIG = 2**63 - 1
DOWN = {"", Phase.STARTING, Phase.EXITED, Phase.STOPPING}  # from these an engine becomes ready
HEALTHS = {"ok", "degraded", "lost"}
GPU_FACTS = ("index", "kind", "name", "memory_bytes", "mig_parent", "pci", "peers")
GPU_COLUMNS = (*GPU_FACTS, "present", "health", "health_detail", "foreign")


@dataclass(frozen=True, slots=True)
class Event:
    """News for the audit trail."""

    verb: str
    subject: Model
    after: dict[str, Any] = field(default_factory=dict)
    detail: str = ""


def devices(node: Node, report: NodeReport) -> list[Event]:
    """GPUs as reported. One that is gone stays as a row that is not present: people must see what was lost."""
    samples = {sample.uuid: sample for sample in report.samples}
    rows = {gpu.uuid: gpu for gpu in node.gpus.all()}
    for gpu in rows.values():
        gpu.node = node
    is_first = not rows
    events = []
    for device in {device.uuid: device for device in report.devices}.values():
        values = _device_values(device, samples.get(device.uuid), rows.get(clean(device.uuid, 256)))
        gpu = rows.pop(clean(device.uuid, 256), None)
        if gpu is None:
            gpu = Gpu.objects.create(node=node, uuid=clean(device.uuid, 256), **values)
            events += [] if is_first else [Event("gpu-found", gpu, {"name": gpu.name})]
        else:
            events += _gpu_news(gpu, values)
            _save(gpu, values)
    for gpu in rows.values():
        if gpu.present:
            events.append(Event("gpu-gone", gpu, {"uuid": gpu.uuid}, "The node reports it no longer."))
            _save(gpu, {"present": False})
    return events


def replicas(node: Node, report: NodeReport, now: datetime) -> list[Event]:
    """Engines as reported, each to the partition it fills. Partitions of other nodes are out of an agent's reach."""
    statuses = {status.partition: status for status in report.replicas}
    events = []
    for partition in node.partitions.select_related("deployment"):
        partition.node = node
        status = statuses.get(partition.pk)
        values = _no_process(partition, report) if status is None else _replica_values(partition, status, now)
        events += _replica_news(partition, status, values)
        _save(partition, values)
    return events


def clean(text: str, length: int) -> str:
    """What a text column holds: PostgreSQL takes no NUL."""
    return text.replace("\x00", "")[:length]


def whole(number: float | None, largest: int = LARGEST) -> int:
    return min(int(number or 0), largest)


def _save(row: Gpu | Partition, values: dict[str, Any]) -> None:
    """Write the columns that differ, and no others: an operator may be writing theirs."""
    changed = [column for column, value in values.items() if getattr(row, column) != value]
    if changed:
        for column in changed:
            setattr(row, column, values[column])
        row.save(update_fields=changed)


def _device_values(device: Device, sample: DeviceSample | None, gpu: Gpu | None) -> dict[str, Any]:
    """Health is of the sample; a device that gave none this time is as it was."""
    health, detail, foreign = (gpu.health, gpu.health_detail, gpu.foreign) if gpu else ("ok", "", False)
    if sample is not None:
        health, detail, foreign = sample.health, sample.health_detail, bool(sample.foreign_pids)
    if health not in HEALTHS:
        health, detail = "degraded", f"{health}: {detail}"
    return {
        "index": whole(device.index),
        "kind": device.kind.value,
        "name": clean(device.name, 255),
        "memory_bytes": whole(device.memory_bytes, LARGEST_BIG),
        "mig_parent": clean(device.mig_parent, 256),
        "pci": clean(device.pci, 256),
        "peers": [clean(peer, 256) for peer in device.peers],
        "present": True,
        "health": health,
        "health_detail": clean(detail, 255),
        "foreign": foreign,
    }


def _gpu_news(gpu: Gpu, values: dict[str, Any]) -> Iterable[Event]:
    if not gpu.present:
        yield Event("gpu-returned", gpu, {"uuid": gpu.uuid})
    if gpu.health != values["health"]:
        verb = {"ok": "gpu-recovered", "degraded": "gpu-degraded", "lost": "gpu-lost"}[values["health"]]
        yield Event(verb, gpu, {"health": values["health"]}, values["health_detail"])


def _no_process(partition: Partition, report: NodeReport) -> dict[str, Any]:
    """Nothing runs there; whether that is so at the partition's generation is told by the spec that the agent holds."""
    heard = report.generation >= partition.generation
    return {
        "phase": "",
        "phase_since": None,
        "observed_generation": partition.generation if heard else partition.observed_generation,
        "observed_role": "",
        "endpoint": "",
        "pid": 0,
        "restarts": 0,
        "message": "",
        "ready_after_s": None,
        "engine_version": "",
    }


def _replica_values(partition: Partition, status: ReplicaStatus, now: datetime) -> dict[str, Any]:
    phase, pid = status.phase.value, whole(status.pid)
    since = partition.phase_since
    if since is None or (partition.phase, partition.pid) != (phase, pid):
        since = now - timedelta(seconds=min(max(status.phase_age_s, 0.0), 10 * 365 * 86400.0))
    endpoint, refusal = _endpoint(partition.node, status.endpoint)
    return {
        "phase": phase,
        "phase_since": since,
        "observed_generation": whole(status.generation, LARGEST_BIG),
        "observed_role": status.role.value,
        "endpoint": endpoint,
        "pid": pid,
        "restarts": whole(status.restarts),
        "message": clean(refusal or status.message, 256),
        "ready_after_s": status.ready_after_s,
        "engine_version": clean(status.engine_version, 64),
    }


def _endpoint(node: Node, endpoint: str) -> tuple[str, str]:
    """An engine's address, or why it is not believed: the gateway sends prompts and the engine's key there, so it must
    lie on the node that says so."""
    if not endpoint:
        return "", ""
    try:
        parts = urlsplit(endpoint)
        plain = parts.scheme in {"http", "https"} and parts.port and parts.path in {"", "/"}
        plain = plain and not (parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        return "", "The agent reports an endpoint that is no address."
    if not plain:
        return "", "The agent reports an endpoint that is no plain http://host:port."
    if parts.hostname != node.address.strip("[]").lower():
        return "", f"The agent reports an engine at {parts.hostname}, but its node is {node.address}: join it anew."
    return clean(endpoint.rstrip("/"), 255), ""


def _replica_news(partition: Partition, status: ReplicaStatus | None, values: dict[str, Any]) -> Iterable[Event]:
    """Of a crash loop that has been told, nothing more until the agent forgets the restarts of an engine that stays
    ready: the trail is kept for ever, and an engine that cannot start would fill it with its last words."""
    old, new = partition.phase, values["phase"]
    was_looping = partition.restarts >= CRASH_LOOP_AFTER
    is_told = was_looping and values["restarts"] >= CRASH_LOOP_AFTER
    facts = {"deployment": clean(status.deployment, 120), "role": status.role.value} if status else {}
    if status and _has_died(partition, status):
        if not is_told:
            yield Event("engine-exited", partition, facts | _exit_facts(status), _last_words(status))
    elif old and old != Phase.EXITED and new in ("", Phase.EXITED):
        yield Event("engine-stopped", partition, facts)
    if status is None:
        return
    if new == Phase.STARTING and old != Phase.STARTING and not is_told:
        yield Event("engine-started", partition, facts | {"restarts": values["restarts"]})
    if new == Phase.READY and not is_told and (was_looping or old in DOWN):
        yield _ready(partition, status, facts | {"ready_after_s": values["ready_after_s"]})
    same_process = partition.pid == values["pid"] and new == old == Phase.READY
    if same_process and partition.observed_role != values["observed_role"]:
        yield Event("engine-relabelled", partition, facts)
    if values["restarts"] >= CRASH_LOOP_AFTER and not was_looping:
        yield Event("engine-crash-looping", partition, facts | {"restarts": values["restarts"]}, _last_words(status))


def _ready(partition: Partition, status: ReplicaStatus, facts: dict[str, Any]) -> Event:
    """A wake is told apart from a start: it takes another time."""
    if status.woken_after_s is None:
        return Event("engine-ready", partition, facts)
    return Event("engine-woke", partition, facts | {"woken_after_s": status.woken_after_s})


def _has_died(partition: Partition, status: ReplicaStatus) -> bool:
    """It ended by itself: seen as exited when nobody had asked it to stop, or started again since the last report."""
    if status.phase is Phase.EXITED:
        return partition.phase in (Phase.STARTING, Phase.READY, Phase.ASLEEP, Phase.DRAINING)
    return status.restarts > partition.restarts and partition.phase not in ("", Phase.EXITED, Phase.STOPPING)


def _exit_facts(status: ReplicaStatus) -> dict[str, Any]:
    return {"code": status.last_exit.code if status.last_exit else None, "restarts": whole(status.restarts)}


def _last_words(status: ReplicaStatus) -> str:
    if status.last_exit and status.last_exit.log_tail:
        return clean(status.last_exit.log_tail[-LOG_TAIL:], LOG_TAIL)
    return clean(status.message, 256)
