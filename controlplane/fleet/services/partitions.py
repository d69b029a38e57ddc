"""How a node's GPUs are divided."""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.db import transaction

from controlplane.audit.services import Actor
from controlplane.domain import partitions as rules
from controlplane.domain.types import DomainError, Problem
from controlplane.fleet import owners, versions
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.facts import device_view, has_process
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.fleet.services import rows

_PARTITION_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@transaction.atomic
def split_node(
    node_id: int, *, preset: str | None = None, groups: Sequence[Sequence[int]] | None = None, actor: Actor
) -> list[Partition]:
    """Divide the whole node anew, as a preset says or by groups of GPU indices: partitions p0, p1, ... in that order.
    Partitions that were there go; refused while one of them is assigned or has a process."""
    node = rows.lock_node(node_id)
    owners.require(actor, "partition.change", node)
    gpus = {gpu.index: gpu for gpu in node.gpus.filter(present=True)}
    wanted = _groups(gpus, preset, groups)
    _require_lawful(gpus, wanted)
    old = list(node.partitions.select_related("deployment").prefetch_related("gpus"))
    _require_unused(old)
    before = {"partitions": {p.name: sorted(gpu.index for gpu in p.gpus.all()) for p in old}}
    node.partitions.all().delete()
    made = [_make(node, f"p{number}", [gpus[index] for index in group]) for number, group in enumerate(wanted)]
    after = {"partitions": {p.name: list(group) for p, group in zip(made, wanted, strict=True)}}
    versions.record(actor, "split", node, before=before, after=after)
    return made


@transaction.atomic
def create_partition(node_id: int, *, name: str, gpu_indices: Sequence[int], actor: Actor) -> Partition:
    """One more partition, of GPUs that lie in none."""
    node = rows.lock_node(node_id)
    owners.require(actor, "partition.change", node)
    _require_name(node, name)
    gpus = {gpu.index: gpu for gpu in node.gpus.filter(present=True).select_related("partition")}
    _require_lawful(gpus, [list(gpu_indices)])
    members = [gpus[index] for index in gpu_indices]
    if taken := [gpu for gpu in members if gpu.partition_id]:
        problems = [_taken(gpu) for gpu in taken]
        raise Refused(problems)
    partition = _make(node, name, members)
    versions.record(actor, "create", partition, after={"gpus": sorted(gpu_indices)})
    return partition


@transaction.atomic
def delete_partition(partition_id: int, *, actor: Actor) -> None:
    """Its GPUs lie in no partition afterwards. Refused while it is assigned or has a process."""
    partition = rows.lock_partition(partition_id)
    owners.require_partition(actor, "partition.change", partition)
    _require_unused([partition])
    indices = sorted(partition.gpus.values_list("index", flat=True))
    versions.record(actor, "delete", partition, before={"gpus": indices})
    partition.delete()


def _groups(gpus: dict[int, Gpu], preset: str | None, groups: Sequence[Sequence[int]] | None) -> list[list[int]]:
    if (preset is None) == (groups is None):
        problem = Problem("split", "Say either a preset or groups of GPUs.", "Presets: " + ", ".join(rules.PRESETS))
        raise Invalid([problem])
    if groups is not None:
        return [list(group) for group in groups]
    try:
        positions = rules.preset(preset, len(gpus))
    except DomainError as error:
        raise Refused([error.problem]) from error
    in_order = sorted(gpus)  # indices may have gaps: a GPU that is gone leaves one
    return [[in_order[position] for position in group] for group in positions]


def _require_lawful(gpus: dict[int, Gpu], groups: list[list[int]]) -> None:
    devices = [device_view(gpu) for gpu in gpus.values()]
    if problems := rules.validate_split(devices, groups):
        raise Refused(problems)


def _require_unused(partitions: Sequence[Partition]) -> None:
    problems = [problem for partition in partitions if (problem := _in_use(partition))]
    if problems:
        raise Refused(problems)


def _in_use(partition: Partition) -> Problem | None:
    if partition.deployment:
        message = f"Partition {partition.name} is assigned to {partition.deployment} as {partition.role}."
        return Problem("partition-assigned", message, "Release it first.")
    if has_process(partition):
        message = f"An engine still runs in partition {partition.name} ({partition.phase})."
        return Problem("partition-busy", message, "Wait until it has ended.")
    return None


def _require_name(node: Node, name: str) -> None:
    if not _PARTITION_NAME.fullmatch(name):
        fix = "Use up to 40 lower-case letters, digits and dashes, beginning and ending with a letter or digit."
        raise Invalid([Problem("partition-name", f"{name!r} is no partition name.", fix)])
    if node.partitions.filter(name=name).exists():
        raise Refused(
            [Problem("partition-exists", f"{node.name} has a partition {name} already.", "Use another name.")]
        )


def _taken(gpu: Gpu) -> Problem:
    message = f"GPU {gpu.index} lies in partition {gpu.partition.name}."
    return Problem("gpu-taken", message, "Delete that partition, or choose another GPU.")


def _make(node: Node, name: str, gpus: Sequence[Gpu]) -> Partition:
    partition = Partition.objects.create(node=node, name=name)
    Gpu.objects.filter(pk__in=[gpu.pk for gpu in gpus]).update(partition=partition)
    return partition
