"""One partition at once: which deployment it runs, in which role. Several together are a change: see changes.py."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain import placement
from controlplane.domain.impact import DECODE_SETTLE_S, RELABEL_S, Action
from controlplane.domain.types import Problem
from controlplane.fleet import owners
from controlplane.fleet.errors import Conflict, Invalid, Refused
from controlplane.fleet.facts import deployment_view, partition_view
from controlplane.fleet.models import Deployment, Partition
from controlplane.fleet.services import checks, desired, exclusive, rows
from workers.contract import Phase, Role


@transaction.atomic
def assign(
    partition_id: int,
    *,
    deployment_id: int,
    role: str,
    actor: Actor,
    reason: str = "",
    force: bool = False,
    expected_generation: int | None = None,
) -> Partition:
    """The partition shall run this deployment in this role. `expected_generation` is the one that the caller saw:
    with another one it is Conflict. `force` overrides problems that are forceable, and only those."""
    wanted = _role(role)
    deployment = rows.lock_deployment(deployment_id)
    partition = rows.lock_partition(partition_id)
    owners.require_partition(actor, "partition.assign", partition, deployment)
    _require_generation(partition, expected_generation)
    exclusive.require_free([partition.pk])
    if (partition.deployment_id, partition.role) == (deployment.pk, wanted.value):
        return partition
    problems = _problems(partition, deployment, wanted)
    if placement.blocking(problems, force=force):
        raise Refused(problems)
    forced = "\n".join(f"Forced in spite of: {problem.message}" for problem in problems)
    desired.write(partition, deployment, wanted.value, actor=actor, reason=reason, detail=forced)
    return partition


@transaction.atomic
def release(partition_id: int, *, actor: Actor, reason: str = "", expected_generation: int | None = None) -> Partition:
    """The partition shall run nothing: its engine drains and ends."""
    partition = rows.lock_partition(partition_id)
    owners.require_partition(actor, "partition.assign", partition)
    _require_generation(partition, expected_generation)
    exclusive.require_free([partition.pk])
    if partition.deployment_id is None:
        return partition
    desired.write(partition, None, "", actor=actor, reason=reason)
    return partition


def preview_assign(partition_id: int, *, deployment_id: int, role: str, actor: Actor | None = None) -> dict[str, Any]:
    """What `assign` by this actor would do, changing nothing: problems, warnings, memory, whether the process stays,
    and how long it is expected to take (None: not known)."""
    wanted = _role(role)
    partition = rows.get(Partition, partition_id, "node", "deployment__model")
    deployment = rows.get(Deployment, deployment_id, "model")
    same = (partition.deployment_id, partition.role) == (deployment.pk, wanted.value)
    kept = owners.problems(actor, "partition.assign", [partition.node, partition.deployment, deployment])
    problems = [] if same else [*kept, *_problems(partition, deployment, wanted)]
    action = checks.action(partition, deployment, wanted.value)
    fit = placement.memory_fit(partition_view(partition), deployment_view(deployment), wanted)
    return {
        "partition": partition.pk,
        "generation": partition.generation,
        "before": desired.assignment(partition),
        "after": {"deployment": deployment.name, "role": wanted.value},
        "action": action.value,
        "expected_s": _expected_s(action, partition, deployment),
        "problems": [problem.to_dict() for problem in problems],
        "forceable": bool(problems) and all(problem.forceable for problem in problems),
        "warnings": [] if same else [problem.to_dict() for problem in _warnings(partition)],
        "fit": fit.to_dict(),
    }


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        fix = f"Use {', '.join(Role)}."
        raise Invalid([Problem("role", f"{role!r} is no role.", fix)]) from None


def _require_generation(partition: Partition, expected: int | None) -> None:
    if expected is None or expected == partition.generation:
        return
    last = AuditEvent.objects.filter(subject_type="partition", subject_id=partition.pk).exclude(
        source=AuditEvent.Source.AGENT
    ).first()  # fmt: skip
    now = f"{partition.deployment} as {partition.role}" if partition.deployment else "unassigned"
    who = f" {last.actor_name} changed it last ({last.verb}, {last.at:%Y-%m-%d %H:%M:%S} UTC)." if last else ""
    message = f"{partition} is no longer as you saw it: it is now {now}.{who}"
    raise Conflict(message)


def _problems(partition: Partition, deployment: Deployment, role: Role) -> list[Problem]:
    return [*checks.obstacles(partition, deployment, role), *_over_maximum(partition, deployment, role)]


def _over_maximum(partition: Partition, deployment: Deployment, role: Role) -> list[Problem]:
    highest = getattr(deployment, f"max_{role.value}")
    others = deployment.partitions.exclude(pk=partition.pk).filter(role=role.value, overflow=False).count()
    if highest is None or others < highest:
        return []
    message = f"{deployment.name} has {others} {role.value} replicas, and its maximum is {highest}."
    return [Problem("over-maximum", message, "Raise the maximum, or go on with force.", forceable=True)]


def _warnings(partition: Partition) -> list[Problem]:
    """What the partition's present deployment would lose."""
    losing, role = partition.deployment, partition.role
    if losing is None or partition.overflow:
        return []
    left = losing.partitions.exclude(pk=partition.pk).filter(role=role, overflow=False).count()
    lowest = getattr(losing, f"min_{role}")
    if left < lowest:
        message = f"{losing.name} would have {left} {role} replicas left, and its minimum is {lowest}."
        return [Problem("under-minimum", message, "Assign another partition to it first.", forceable=True)]
    if left == 0:
        message = f"This is the last {role} replica of {losing.name}."
        return [Problem("last-replica", message, "Assign another partition to it first.", forceable=True)]
    return []


def _expected_s(action: Action, partition: Partition, deployment: Deployment) -> float | None:
    """For a replacement the longest: how soon its requests in flight end is theirs to say."""
    if action == Action.RELABEL:
        return RELABEL_S
    ready, drain = checks.usual_start_s(deployment, partition.node), 0.0
    if ready is None or action == Action.NONE:
        return None
    if action == Action.REPLACE and partition.phase in (Phase.READY, Phase.DRAINING):
        if partition.deployment is None:
            return None  # it drains by the deadline of the deployment that it was released from
        drain = DECODE_SETTLE_S + partition.deployment.drain_s
    return drain + ready
