"""A plan is applied or dismissed, once."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain.rollout import Move
from controlplane.domain.types import Problem, Role
from controlplane.fleet import versions
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Partition
from controlplane.fleet.services import Stale, apply_change
from controlplane.planning import load
from controlplane.scaling.models import ScalingPlan

State = ScalingPlan.State
ACTOR = Actor.system("planner")


@transaction.atomic
def apply(plan_id: int, *, actor: Actor, reason: str = "", automatic: bool = False) -> ScalingPlan:
    """Through the same door as any change: it drains, is audited and can be undone, what it does to slots of the pool
    too. Raises FleetError: NotFound, Refused where it is decided already or a problem stands against it, Stale where
    the fleet changed since."""
    plan = _lock(plan_id)
    _require_fresh(plan)
    pool = {row["partition"]: bool(row["pool"]) for row in plan.pool}
    plan.change = apply_change(
        moves_of(plan),
        version=versions.current(),
        actor=actor,
        reason=reason or _why(plan),
        live=load.live(),
        pool=pool,
    )
    _decide(plan, State.APPLIED, actor, reason, automatic=automatic)
    record(actor, "apply", plan, after={"moves": [row["why"] for row in (*plan.moves, *plan.pool)]}, reason=reason)
    return plan


@transaction.atomic
def dismiss(plan_id: int, *, actor: Actor, reason: str = "") -> ScalingPlan:
    """It is not to be done. Looks of the next hour that come to the same moves do not propose it again."""
    plan = _lock(plan_id)
    _decide(plan, State.DISMISSED, actor, reason)
    record(actor, "dismiss", plan, reason=reason)
    return plan


def moves_of(plan: ScalingPlan) -> list[Move]:
    return [Move(row["partition"], row["deployment"], Role(row["role"]) if row["role"] else None) for row in plan.moves]


def _lock(plan_id: int) -> ScalingPlan:
    plan = ScalingPlan.objects.select_for_update().filter(pk=plan_id).first()
    if plan is None:
        raise NotFound("plan", plan_id)
    if plan.state != State.OPEN:
        message = f"Plan {plan_id} is {plan.get_state_display().lower()}. Nothing was changed."
        raise Refused([Problem("not-open", message, "Look at the open one.")])
    return plan


def _require_fresh(plan: ScalingPlan) -> None:
    """Of the nodes and deployments that it concerns, as the preview saw them."""
    partitions = {row["partition"] for row in (*plan.moves, *plan.pool)}
    rows = list(Partition.objects.filter(pk__in=partitions).values_list("node", "deployment"))
    if len(rows) < len(partitions):
        problem = Problem("gone", "A partition of this plan is gone. Nothing was changed.", "Wait for the next look.")
        raise Refused([problem])
    deployments = {row["deployment"] for row in plan.moves} | {deployment for _, deployment in rows}
    events = versions.newer(plan.version, nodes={node for node, _ in rows}, deployments=deployments - {None})
    if events:
        raise Stale(events)


def _decide(plan: ScalingPlan, state: State, actor: Actor, reason: str, *, automatic: bool = False) -> None:
    plan.state, plan.decided_at, plan.decided_by = state, timezone.now(), actor.name[:150]
    plan.reason, plan.automatic = reason[:1000], automatic
    plan.save()


def _why(plan: ScalingPlan) -> str:
    return f"scaling plan {plan.pk}: {'; '.join(dict.fromkeys(row['why'] for row in (*plan.moves, *plan.pool)))}"[:1000]
