"""Rows joined with what the page shows of them now: status from the domain's rules, GPUs in order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from controlplane.audit.models import AuditEvent
from controlplane.domain import health
from controlplane.fleet.facts import node_view, partition_view
from controlplane.fleet.models import Gpu, Node, Partition
from workers.contract import DeviceKind, Phase

PARTITIONS = Partition.objects.select_related("node", "deployment", "deployment__model").prefetch_related("gpus")


@dataclass(frozen=True, slots=True)
class PartitionRow:
    partition: Partition
    gpus: list[Gpu]
    status: str
    confirmed: bool
    last_words: AuditEvent | None = None  # of its engine, where one ended by itself and none has stayed up since

    @property
    def devices(self) -> str:
        return device_word(self.gpus)

    @property
    def indexes(self) -> list[int]:
        return [gpu.index for gpu in self.gpus]


@dataclass(frozen=True, slots=True)
class NodeRow:
    node: Node
    gpus: list[Gpu]
    partitions: list[PartitionRow]
    status: str

    @property
    def devices(self) -> str:
        return device_word(self.gpus)

    @property
    def free(self) -> list[Gpu]:
        return [gpu for gpu in self.gpus if gpu.partition_id is None and gpu.present]

    @property
    def in_use(self) -> list[PartitionRow]:
        return [row for row in self.partitions if row.partition.deployment_id]

    @property
    def runs(self) -> list[tuple[str, str, int]]:
        """(role, deployment, how many), in the order of the partitions."""
        counts = Counter((row.partition.role, row.partition.deployment.name) for row in self.in_use)
        return [(role, name, count) for (role, name), count in counts.items()]

    @property
    def idle(self) -> int:
        return len(self.partitions) - len(self.in_use)

    @property
    def crashing(self) -> int:
        return sum(row.status == health.PartitionStatus.CRASH_LOOPING for row in self.partitions)

    @property
    def unfit(self) -> int:
        """GPUs that nothing new is placed on, or that something is wrong with."""
        return sum(not gpu.present or gpu.foreign or bool(gpu.flag) or gpu.health != "ok" for gpu in self.gpus)

    @property
    def kinds(self) -> list[str]:
        return sorted({gpu.name for gpu in self.gpus})


def nodes(rows: QuerySet[Node]) -> list[NodeRow]:
    rows = rows.defer("spec").prefetch_related("gpus", "partitions__deployment", "partitions__gpus")
    return [_node(row, time.time()) for row in rows]


def partitions(rows: Iterable[Partition]) -> list[PartitionRow]:
    now = time.time()
    return [_partition(row, now) for row in rows]


def with_last_words(found: list[PartitionRow]) -> list[PartitionRow]:
    """The same rows, with what the last engine said where it ended by itself."""
    troubled = [row.partition.pk for row in found if row.partition.restarts or row.partition.phase == Phase.EXITED]
    if not troubled:
        return found
    events = AuditEvent.objects.filter(
        subject_type="partition", subject_id__in=troubled, verb__in=("engine-exited", "engine-crash-looping")
    ).exclude(detail="")
    newest: dict[int | None, AuditEvent] = {}
    for event in events.order_by("-id")[: 10 * len(troubled)]:
        newest.setdefault(event.subject_id, event)
    return [replace(row, last_words=newest.get(row.partition.pk)) for row in found]


def device_word(gpus: Iterable[Gpu]) -> str:
    gpus = list(gpus)
    word = "CPU slot" if gpus and all(gpu.kind == DeviceKind.CPU for gpu in gpus) else "GPU"
    return word if len(gpus) == 1 else f"{word}s"


def _node(node: Node, now: float) -> NodeRow:
    gpus, members = list(node.gpus.all()), sorted(node.partitions.all(), key=lambda partition: partition.name)
    view = node_view(node, gpus=gpus, partitions=members)
    for member in members:
        member.node = node
    status = str(health.node_status(view, now, settings.SILENT_AFTER_S))
    return NodeRow(node, gpus, [_partition(member, now) for member in members], status)


def _partition(partition: Partition, now: float) -> PartitionRow:
    gpus: Any = sorted(partition.gpus.all(), key=lambda gpu: gpu.index)
    view = partition_view(partition, gpus=gpus)
    status = str(health.partition_status(view, now, settings.SILENT_AFTER_S))
    return PartitionRow(partition, gpus, status, health.is_confirmed(view))
