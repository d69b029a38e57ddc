"""Slots change hands: all of a plan or none of it, and never half of a pair. In the caller's transaction, with its
deployment's row locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment, Partition
from controlplane.fleet.services import desired, exclusive, rows
from controlplane.fleet.services.placing import Plan

ACTOR = Actor.system("pool")


def take(plan: Plan, deployment: Deployment, *, reason: str, lent: bool) -> list[Partition] | None:
    """The plan's slots, now this deployment's, then those that others left besides; None where somebody was faster.
    Whoever leaves ends its requests."""
    locked = rows.lock_partitions([row.pk for row in (*(row for row, _ in plan.takes), *plan.leaving)])
    if not all(_is_as_seen(locked[row.pk], row) for row in (*(row for row, _ in plan.takes), *plan.leaving)):
        return None
    exclusive.require_free(locked.keys())
    for row in plan.leaving:
        left = f"the other half of its pair made room for {deployment.name}"
        desired.write(locked[row.pk], None, "", actor=ACTOR, reason=left[:500], sleep=True)
    for row, role in plan.takes:
        desired.write(
            locked[row.pk], deployment, role.value, actor=ACTOR, reason=reason[:500], overflow=lent, sleep=True
        )
    return [locked[row.pk] for row in (*(row for row, _ in plan.takes), *plan.leaving)]


def release(locked: Sequence[Partition], reasons: Mapping[int, str], *, sleep: bool = False) -> None:
    """They are nobody's now. `reasons`: by partition, for the trail. `sleep`: who leaves may stay asleep there, and who
    sleeps there stays."""
    for row in locked:
        desired.write(row, None, "", actor=ACTOR, reason=reasons[row.pk][:500], sleep=sleep)


def _is_as_seen(now: Partition, seen: Partition) -> bool:
    return (now.pool, now.deployment_id, now.generation) == (True, seen.deployment_id, seen.generation)


__all__ = ["ACTOR", "release", "take"]
