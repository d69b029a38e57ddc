"""Plans that are not kept yet: what one would hold, and whether it would be applied without a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from controlplane.fleet.services import preview_change
from controlplane.planning import load
from controlplane.scaling import guarding
from controlplane.scaling.models import ScalingPlan, ScalingPolicy
from controlplane.scaling.sharing import Shared

DISMISSED_FOR = timedelta(hours=1)


def moves(shared: Shared) -> list[dict[str, Any]]:
    """As a plan keeps them."""
    return [
        {
            "partition": given.move.partition,
            "name": shared.names[given.move.partition],
            "deployment": given.move.deployment,
            "role": given.move.role.value if given.move.role else None,
            "why": given.why,
        }
        for given in shared.allotment.moves
    ]


def preview(shared: Shared) -> dict[str, Any]:
    """{} where only slots of the pool change."""
    found = [given.move for given in shared.allotment.moves]
    return preview_change(found, live=load.live()) if found else {}


def goes_by_itself(shared: Shared, rules: ScalingPolicy, now: datetime, *, switches: bool) -> bool:
    """Whether the plan with these moves would be applied at this look."""
    plan = ScalingPlan(moves=moves(shared), pool=list(shared.pool), preview=preview(shared), switches=switches)
    return not was_dismissed(plan.moves, plan.pool, now) and not guarding.held_back(plan, rules, now)


def same(plan: ScalingPlan, moves: Sequence[Mapping[str, Any]], pool: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it does the same, whatever its reasons."""

    def shape(rows: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
        return {(row["partition"], row.get("deployment"), row.get("role"), row.get("pool")) for row in rows}

    return shape(plan.moves) == shape(moves) and shape(plan.pool) == shape(pool)


def was_dismissed(moves: Sequence[Mapping[str, Any]], pool: Sequence[Mapping[str, Any]], now: datetime) -> bool:
    """Or undone, which says the same."""
    since = now - DISMISSED_FOR
    dismissed = Q(state=ScalingPlan.State.DISMISSED, decided_at__gt=since)
    lately = ScalingPlan.objects.filter(dismissed | Q(change__undone_by__created_at__gt=since))
    return any(same(one, moves, pool) for one in lately)
