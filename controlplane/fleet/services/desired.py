"""Writes what one partition shall run. The one place that does; its callers have locked and checked."""

from __future__ import annotations

from typing import Any

from controlplane.audit.services import Actor
from controlplane.fleet import versions
from controlplane.fleet.credentials import new_engine_key
from controlplane.fleet.models import Deployment, Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services import sleepers


def write(
    partition: Partition,
    deployment: Deployment | None,
    role: str,
    *,
    actor: Actor,
    reason: str = "",
    detail: str = "",
    change: int | None = None,
    overflow: bool = False,
    sleep: bool = False,
) -> None:
    """Its node is locked, and so are both deployments. Records the change and publishes it. `overflow`: the pool lends
    the slot, and takes it back. `sleep`: whoever leaves may stay asleep there, as may those who do; else nobody."""
    before, left = assignment(partition), partition.deployment_id
    if deployment is None or left != deployment.pk or not sleep:
        key = sleepers.change_places(partition, deployment, sleep=sleep)
        partition.engine_key = partition.engine_key if deployment and left == deployment.pk else key
    partition.deployment, partition.role, partition.overflow = deployment, role, overflow
    partition.save(update_fields=["deployment", "role", "engine_key", "overflow"])
    publish(partition.node)
    partition.refresh_from_db(fields=["generation"])
    versions.record(
        actor, "assign" if deployment else "release", partition,
        before=before, after=assignment(partition), reason=reason, detail=detail, deployments=[left], change=change,
    )  # fmt: skip


def renew(partition: Partition, *, actor: Actor, reason: str = "", change: int | None = None) -> None:
    """Another key, so another engine content: the engine drains, ends and starts again as the same."""
    partition.engine_key = new_engine_key()
    partition.save(update_fields=["engine_key"])
    publish(partition.node)
    partition.refresh_from_db(fields=["generation"])
    now = assignment(partition)
    versions.record(actor, "recycle", partition, before=now, after=now, reason=reason, change=change)


def assignment(partition: Partition) -> dict[str, Any]:
    """Its desired columns as the audit trail tells them."""
    return {"deployment": partition.deployment.name if partition.deployment else None, "role": partition.role or None}
