"""What people decide about measuring GPUs, and about those that did not pass."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet import owners, qualified
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.fleet.models import Gpu, GpuQualification, Node
from controlplane.fleet.publish import publish
from controlplane.fleet.services import rows
from workers.contract import DeviceKind

NODES_AT_ONCE = 64  # that one look of the schedule turns to
SIBLINGS_OF_LATE = timedelta(hours=1)  # of several looks: one may be lost
State, Cause = GpuQualification.State, GpuQualification.Cause


@transaction.atomic
def qualify_gpu(gpu_id: int, *, actor: Actor, reason: str = "") -> GpuQualification:
    """The GPU is measured as soon as nothing is on it. One that is to be measured already stays as it is."""
    gpu = _lock(gpu_id, actor)
    if problems := _obstacles([gpu]):
        raise Refused(problems)
    [row] = _ask([gpu], actor, reason)
    return row


@transaction.atomic
def qualify_node(node_id: int, *, actor: Actor, reason: str = "") -> list[GpuQualification]:
    """The same of every GPU of the node that nothing is assigned to; refused where that is none."""
    node = rows.lock_node(node_id)
    owners.require(actor, "node.change", node)
    gpus = list(node.gpus.filter(present=True).select_related("node", "partition__deployment").order_by("index"))
    free = [gpu for gpu in gpus if not _obstacles([gpu])]
    if not free:
        nothing = Problem("no-gpu", f"{node.name} has no GPU to measure.", "Wait until its agent has reported them.")
        raise Refused(_obstacles(gpus) or [nothing])
    for gpu in free:
        gpu.node = node
    return _ask(free, actor, reason)


@transaction.atomic
def withdraw_qualification(gpu_id: int, *, actor: Actor, reason: str = "") -> Gpu:
    """What is asked for is given up, running or not; nothing where nothing is."""
    gpu = _lock(gpu_id, actor)
    row = gpu.qualifications.filter(state__in=GpuQualification.OPEN).first()
    if row is not None:
        row.state, row.ended_at = State.WITHDRAWN, timezone.now()
        row.save(update_fields=["state", "ended_at"])
        record(actor, "withdraw-qualification", gpu, reason=reason)
        publish(gpu.node)
    return gpu


@transaction.atomic
def accept_gpu(gpu_id: int, *, actor: Actor, reason: str) -> Gpu:
    """It may be used as it is, until it is measured again."""
    if not reason:
        raise Invalid([Problem("reason", "An acceptance needs a reason.", "Say why the GPU may be used as it is.")])
    gpu = _lock(gpu_id, actor)
    row = qualified.newest([gpu]).get(gpu.pk)
    if row is None or not row.findings:
        message = f"Nothing was found against {gpu}."
        raise Refused([Problem("not-flagged", message, "Only a GPU that is below the bar can be accepted.")])
    if not row.accepted_by:
        row.accepted_by, row.accepted_at, row.accept_reason = actor.name[:150], timezone.now(), reason
        _decide(row, "accept-gpu", gpu, actor, reason)
    return _again(gpu)


@transaction.atomic
def unaccept_gpu(gpu_id: int, *, actor: Actor, reason: str = "") -> Gpu:
    """The undo of `accept_gpu`: what was found counts again. What is assigned to the GPU stays."""
    gpu = _lock(gpu_id, actor)
    row = qualified.newest([gpu]).get(gpu.pk)
    if row is not None and row.accepted_by:
        row.accepted_by, row.accepted_at, row.accept_reason = "", None, ""
        _decide(row, "unaccept-gpu", gpu, actor, reason)
    return _again(gpu)


def qualify_due() -> int:
    """The schedule's look: judges the siblings of what was measured of late, and asks for what was last measured too
    long ago. How many were asked for."""
    qualified.weigh_again(since=timezone.now() - SIBLINGS_OF_LATE)
    if not settings.QUALIFY_EVERY_H:
        return 0
    nodes = _due().values_list("node_id", flat=True).distinct()[:NODES_AT_ONCE]
    return sum(_ask_due(node_id) for node_id in list(nodes))


def _due() -> list[Gpu]:
    """Unassigned, on a node that is heard, and not looked at for so long, with or without a result."""
    now = timezone.now()
    since = now - timedelta(hours=settings.QUALIFY_EVERY_H)
    heard = now - timedelta(seconds=settings.SILENT_AFTER_S)
    kinds, hosts = qualified.automatic_kinds(), {"node__revoked": False, "node__simulated": False}
    gpus = Gpu.objects.filter(kind__in=kinds, node__last_seen__gte=heard, **hosts)
    lately = GpuQualification.objects.filter(Q(ended_at__gte=since) | Q(state__in=GpuQualification.OPEN))
    return qualified.unassigned(gpus).exclude(pk__in=lately.values("gpu"))


@transaction.atomic
def _ask_due(node_id: int) -> int:
    node = Node.objects.select_for_update().filter(pk=node_id).first()
    if node is None:
        return 0
    asked = qualified.ask(_due().filter(node=node), Cause.SCHEDULE, Actor.system("qualification"))
    publish(node)
    return len(asked)


def _lock(gpu_id: int, actor: Actor) -> Gpu:
    node_id = Gpu.objects.filter(pk=gpu_id).values_list("node_id", flat=True).first()
    if node_id is None:
        raise NotFound("GPU", gpu_id)
    node = rows.lock_node(node_id)
    owners.require(actor, "node.change", node)
    gpu = rows.get(Gpu, gpu_id, "partition__deployment")
    gpu.node = node
    return gpu


def _obstacles(gpus: Sequence[Gpu]) -> list[Problem]:
    return [problem for gpu in gpus if (problem := _obstacle(gpu))]


def _obstacle(gpu: Gpu) -> Problem | None:
    if not gpu.present:
        return Problem("gpu-lost", f"{gpu} is not in its node's reports.", "Repair it first.")
    if gpu.kind == DeviceKind.SIMULATED or gpu.node.simulated:
        return Problem("gpu-simulated", f"{gpu} is simulated.", "There is nothing to measure.")
    if gpu.node.revoked:
        return Problem("node-revoked", f"{gpu.node.name} is revoked.", "Remove it and join it anew.")
    partition = gpu.partition
    if partition and partition.deployment:
        message = f"{gpu} serves {partition.deployment.name} in {partition.name}."
        return Problem("gpu-assigned", message, f"Release {partition.name} first: a GPU is measured while it is free.")
    return None


def _ask(gpus: list[Gpu], actor: Actor, reason: str) -> list[GpuQualification]:
    asked = qualified.ask(gpus, Cause.DEMAND, actor)
    if publish(gpus[0].node):
        for gpu in gpus:
            record(actor, "qualify", gpu, reason=reason)
    return asked


def _decide(row: GpuQualification, verb: str, gpu: Gpu, actor: Actor, reason: str) -> None:
    row.save(update_fields=["accepted_by", "accepted_at", "accept_reason"])
    qualified.raise_flag(row)
    found = "\n".join(finding["message"] for finding in row.findings)
    record(actor, verb, gpu, reason=reason, detail=found)


def _again(gpu: Gpu) -> Gpu:
    gpu.refresh_from_db(fields=["flag"])
    return gpu
