"""The facts that guard rails are held against."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from controlplane.costs.prices import gpu_hours_at
from controlplane.domain import guard_rails
from controlplane.domain.guard_rails import Facts
from controlplane.fleet import brake
from controlplane.fleet.models import Change, Deployment, Partition
from controlplane.fleet.services.exclusive import OPEN
from controlplane.scaling import policy
from controlplane.scaling.models import ScalingPlan, ScalingPolicy

HOUR = timedelta(hours=1)


def held_back(plan: ScalingPlan, rules: ScalingPolicy, now: datetime) -> list[str]:
    """Why a person has to apply it; [] where nothing speaks against its being applied by itself."""
    return guard_rails.held_back(policy.rails(rules), _facts(plan, now), now)


def _facts(plan: ScalingPlan, now: datetime) -> Facts:
    lately = ScalingPlan.objects.filter(state=ScalingPlan.State.APPLIED, automatic=True, decided_at__gt=now - HOUR)
    before, after = _dedicated({}), _dedicated({row["partition"]: row for row in plan.moves})
    undone = Change.objects.filter(undoes__plans__automatic=True).order_by("-pk").first()
    return Facts(
        switches=plan.switches,
        moves=len(plan.moves) + len(plan.pool),
        moves_last_hour=sum(len(one.moves) + len(one.pool) for one in lately),
        gpus=sum(after.values()),
        price=_price(after, now),
        grows=sum(after.values()) > sum(before.values()),
        problems=len(plan.preview.get("problems", [])),
        brake=brake.state(now).text if brake.state(now).on else "",
        open_changes=list(Change.objects.filter(state__in=OPEN).values_list("pk", flat=True)),
        since_undone_s=(now - undone.created_at).total_seconds() if undone else None,
    )


def _dedicated(moves: dict[int, dict[str, Any]]) -> dict[str, int]:
    """GPUs of dedicated engines by node, after these moves; not those of the pool that it lends."""
    found: dict[str, int] = {}
    dedicated = set(Deployment.objects.filter(mode=Deployment.Mode.DEDICATED).values_list("pk", flat=True))
    for row in Partition.objects.filter(overflow=False).select_related("node").prefetch_related("gpus"):
        deployment = moves[row.pk]["deployment"] if row.pk in moves else row.deployment_id
        if deployment in dedicated:
            found[row.node.name] = found.get(row.node.name, 0) + len(row.gpus.all())
    return found


def _price(gpus: dict[str, int], now: datetime) -> float | None:
    prices = gpu_hours_at(now)
    if any(node not in prices for node in gpus):
        return None
    return sum(count * prices[node] for node, count in gpus.items())
