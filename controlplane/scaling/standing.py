"""What the last look found, for those who ask: every role of every dedicated deployment, and the plan that is open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from controlplane.fleet.models import Deployment, Partition
from controlplane.scaling.models import LaneLook, ScalingPlan

LATE = timedelta(minutes=3)
MISSED = 3  # looks, where they are further apart than a minute


@dataclass(frozen=True, slots=True)
class Standing:
    """`looked_at`: of the newest look, None where there was none. `is_late`: there should be a newer one, so that what
    is shown may be so no more. `dedicated`: how many deployments are looked at."""

    lanes: tuple[LaneLook, ...]
    plan: ScalingPlan | None
    looked_at: datetime | None
    is_late: bool
    dedicated: int


def standing(now: datetime) -> Standing:
    lanes = tuple(LaneLook.objects.select_related("deployment"))
    looked_at = max((lane.at for lane in lanes), default=None)
    plan = ScalingPlan.objects.filter(state=ScalingPlan.State.OPEN).select_related("change").first()
    dedicated = Deployment.objects.filter(mode=Deployment.Mode.DEDICATED).count()
    is_late = _has_engines() if looked_at is None else now - looked_at > _late_after()
    return Standing(lanes, plan, looked_at, is_late, dedicated)


def told_moves(plan: ScalingPlan) -> list[dict[str, Any]]:
    """Its moves with the names that the preview had: {partition: {id, name}, before, after, why}; `before` and `after`
    are {deployment: {id, name} | None, role}, or None where the preview does not tell."""
    seen = {move["partition"]["id"]: move for move in plan.preview.get("moves", [])}
    return [dict(_told(row, seen.get(row["partition"]))) for row in plan.moves]


def _told(row: dict[str, Any], seen: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    yield "partition", {"id": row["partition"], "name": row["name"]}
    yield "before", seen["before"] if seen else None
    yield "after", seen["after"] if seen else None
    yield "why", row["why"]


def _late_after() -> timedelta:
    return max(LATE, MISSED * timedelta(seconds=settings.SCALING_EVERY_S))


def _has_engines() -> bool:
    """Then a look would have found a role to tell of."""
    return Partition.objects.filter(deployment__mode=Deployment.Mode.DEDICATED).exists()
