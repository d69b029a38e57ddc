"""Reports as an agent would send them, for tests."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import msgspec
from django.utils import timezone

from controlplane.fleet import reports
from controlplane.fleet.models import Gpu, Node, Partition
from workers.contract import Device, DeviceSample, NodeReport, ReplicaStatus, ReportReply

_seq = itertools.count(1)


def report_of(node: Node, **fields: Any) -> NodeReport:
    """The node's agent says that all is as the rows have it. It goes over the wire, so every type is the real one."""
    gpus = list(node.gpus.filter(present=True))
    defaults = {
        "node": node.pk,
        "instance": node.instance or "instance-new",
        "boot": node.boot or "boot-1",
        "seq": next(_seq),
        "at": timezone.now().timestamp(),
        "generation": node.generation,
        "engine_version": node.engine_version,
        "devices": tuple(device_of(gpu) for gpu in gpus),
        "samples": tuple(DeviceSample(uuid=gpu.uuid) for gpu in gpus),
    }
    return msgspec.json.decode(msgspec.json.encode(NodeReport(**(defaults | fields))), type=NodeReport)


def device_of(gpu: Gpu, **fields: Any) -> Device:
    defaults = {"index": gpu.index, "kind": gpu.kind, "name": gpu.name, "memory_bytes": gpu.memory_bytes}
    return Device(uuid=gpu.uuid, **(defaults | fields))


def status_of(partition: Partition, phase: str, **fields: Any) -> ReplicaStatus:
    """An engine of the partition, as desired, in that phase."""
    defaults = {
        "deployment": partition.deployment.name,
        "role": partition.role,
        "generation": partition.generation,
        "pid": 4242,
        "endpoint": "http://127.0.0.1:18100",
    }
    return ReplicaStatus(partition=partition.pk, phase=phase, **(defaults | fields))


def tell(node: Node, *, now: datetime | None = None, **fields: Any) -> ReportReply:
    """Send a report as the uplink would: with the node's row as it is now."""
    node.refresh_from_db()
    now = now or timezone.now()
    return reports.receive(report_of(node, **({"at": now.timestamp()} | fields)), node=node, now=now)


def settle(node: Node, now: datetime, **fields: Any) -> None:
    """The node has its first spec and said so: the next equal report is no news."""
    for _ in range(2):
        tell(node, now=now, **fields)
    node.refresh_from_db()
