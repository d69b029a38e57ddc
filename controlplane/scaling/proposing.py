"""Each minute: look at every role of every dedicated deployment, and propose the moves that it takes. One plan is open
at a time; one that comes out the same again stays, one that comes out otherwise takes its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Q

from controlplane.audit.services import record
from controlplane.domain import scaling
from controlplane.domain.allotment import Allotment, Want
from controlplane.domain.scaling import Kind, Wanted
from controlplane.fleet import versions
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Deployment
from controlplane.scaling import drafts, gathering, guarding, overflowing, policy, recovering, sharing, switching
from controlplane.scaling.gathering import Gathered
from controlplane.scaling.models import LaneLook, ScalingPlan, ScalingPolicy
from controlplane.scaling.plans import ACTOR, apply
from workers.contract import Role

log = structlog.get_logger(__name__)
MOST_TOLD = 20  # moves that an event lists; the plan has all
KEEP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _Decided:
    gathered: Gathered
    wanted: Mapping[Role, Wanted]


def propose(now: datetime) -> ScalingPlan | None:
    """The open plan after this look; None where nothing is to be done. One that nothing holds back is applied."""
    rules, version = policy.current(), versions.current()  # before the rows: then it is never newer than they are
    recovering.roll_back_failed()
    fleet = gathering.fleet(now)
    decided = [_decided(one, rules) for one in gathering.gather(fleet, rules, now)]
    wants = [want for one in decided for want in _wants(one)]
    shared = sharing.share(wants, fleet, now)
    _remember(decided, shared.allotment, now)
    switched = switching.share([one.gathered for one in decided], wants, fleet, usual=shared, rules=rules, now=now)
    overflowing.lend(shared.allotment.short, [one.gathered.deployment for one in decided], now)
    try:
        plan = _kept(switched or shared, rules, version, now, switches=switched is not None)
    except IntegrityError:  # one open plan at most: another worker's look made it in this very moment
        log.warning("another control worker looks as well; run one with beat")
        return ScalingPlan.objects.filter(state=ScalingPlan.State.OPEN).first()
    if plan is None or plan.held_back:
        return plan
    try:
        return apply(plan.pk, actor=ACTOR, reason=_reason(plan), automatic=True)
    except FleetError as error:
        log.warning("a plan could not be applied; the next look makes another", plan=plan.pk, why=str(error))
        return plan


def prune(now: datetime) -> None:
    """Forget plans that nobody applied, after a month."""
    stale = ScalingPlan.objects.filter(decided_at__lt=now - KEEP)
    stale.exclude(state__in=(ScalingPlan.State.OPEN, ScalingPlan.State.APPLIED)).delete()


def _decided(one: Gathered, rules: ScalingPolicy) -> _Decided:
    decode = one.lanes.get(Role.DECODE)
    full = decode is not None and scaling.is_full(decode.load)
    return _Decided(
        one,
        {
            role: scaling.wanted(lane, one.served, quiet_s=rules.quiet_s, decode_full=full)
            for role, lane in one.lanes.items()
        },
    )


def _wants(decided: _Decided) -> list[Want]:
    one = decided.gathered
    return [
        Want(
            lane=(one.deployment.pk, role),
            count=one.lanes[role].count,
            wanted=wanted.count,
            why=f"{one.deployment.name} {role.value} {one.lanes[role].count} to {wanted.count}: {wanted.why}",
            least=max(1, one.lanes[role].least),
            priority=one.deployment.priority,
            now=wanted.kind in (Kind.PRESSURE, Kind.BOUND, Kind.LOST),
        )
        for role, wanted in decided.wanted.items()
    ]


@transaction.atomic
def _remember(decided: Sequence[_Decided], allotment: Allotment, now: datetime) -> None:
    """Another worker that looks as well may be ahead or behind: what is newer stays, and never is there nothing. What
    is further ahead gives way, or after the clock was set back nothing would be remembered for as long."""
    horizon = gathering.horizon(now)
    if LaneLook.objects.filter(at__gt=now, at__lte=horizon).exists():
        return
    looks = [
        _look(one.gathered, role, wanted, allotment.short.get((one.gathered.deployment.pk, role), 0), now)
        for one in decided
        for role, wanted in one.wanted.items()
    ]
    there = Deployment.objects.filter(pk__in={look.deployment_id for look in looks}).values_list("pk", flat=True)
    known = set(there)  # one may have been deleted while we looked
    fields = [field.name for field in LaneLook._meta.fields if field.name not in ("id", "deployment", "role")]
    LaneLook.objects.bulk_create(
        sorted(
            (look for look in looks if look.deployment_id in known), key=lambda look: (look.deployment_id, look.role)
        ),
        update_conflicts=True,
        unique_fields=["deployment", "role"],
        update_fields=fields,
    )
    LaneLook.objects.filter(Q(at__lt=now) | Q(at__gt=horizon)).delete()


def _look(one: Gathered, role: Role, wanted: Wanted, short: int, now: datetime) -> LaneLook:
    lane, before, floor = one.lanes[role], one.looks.get(role.value), one.floor
    since = before.fewer_since if before and before.fewer_since else now
    return LaneLook(
        deployment=one.deployment,
        role=role.value,
        at=now,
        count=lane.count,
        ready=lane.ready,
        lost=lane.lost,
        wanted=wanted.count,
        kind=wanted.kind.value,
        why=wanted.why[:255],
        short=short,
        fewer_since=since if wanted.fewer_would_do else None,
        floor=lane.floor,
        floor_why=floor.why[:255],
        floor_at=floor.at if lane.floor is not None else None,
        other=floor.other.text if floor.other else "",
        other_ratio=floor.other.ratio if floor.other else None,
        other_at=floor.other.at if floor.other else None,
        other_rate=floor.other.rate if floor.other else None,
        other_counts=_by_name(floor.other.counts) if floor.other else None,
        other_basis=floor.other.basis if floor.other else "",
        other_missed=floor.other.missed if floor.other else False,
        other_since=switching.clear_since(one.looks, floor, now),
        rate_now=floor.coming.now,
        rate_coming=floor.coming.rate,
    )


def _by_name(counts: Mapping[Role, int] | None) -> dict[str, int] | None:
    return None if counts is None else {role.value: count for role, count in counts.items()}


@transaction.atomic
def _kept(
    shared: sharing.Shared, rules: ScalingPolicy, version: int, now: datetime, *, switches: bool = False
) -> ScalingPlan | None:
    """The open plan with these moves: the one that there is where they are the same."""
    moves, pool = drafts.moves(shared), list(shared.pool)
    open_ones = list(ScalingPlan.objects.select_for_update().filter(state=ScalingPlan.State.OPEN))
    plan = next((one for one in open_ones if drafts.same(one, moves, pool)), None)
    for one in open_ones:
        if one is not plan:
            one.state, one.decided_at, one.decided_by = ScalingPlan.State.SUPERSEDED, now, ACTOR.name
            one.save(update_fields=["state", "decided_at", "decided_by"])
            why = "this look came to other moves" if moves or pool else "this look came to no moves"
            record(ACTOR, "supersede", one, reason=why)
    if not (moves or pool) or (plan is None and drafts.was_dismissed(moves, pool, now)):
        return None
    plan = plan or ScalingPlan(made_at=now)
    is_new, held = plan.pk is None, list(plan.held_back)
    plan.preview = drafts.preview(shared)
    plan.seen_at, plan.version, plan.moves, plan.pool, plan.switches = now, version, moves, pool, switches
    plan.held_back = guarding.held_back(plan, rules, now)
    plan.save()
    _record(plan, is_new, held)
    return plan


def _record(plan: ScalingPlan, is_new: bool, held: Sequence[str]) -> None:
    """That it is proposed, and what holds it back: again where that is another reason, not another number."""
    if is_new:
        whys = [row["why"] for row in (*plan.moves, *plan.pool)][:MOST_TOLD]
        record(ACTOR, "propose", plan, after={"moves": whys, "held_back": plan.held_back}, reason=_reason(plan))
    elif _without_numbers(held) != _without_numbers(plan.held_back):
        before, after = {"held_back": list(held)}, {"held_back": plan.held_back}
        why = "; ".join(plan.held_back)[:1000] or "nothing holds it back any more"
        record(ACTOR, "hold" if plan.held_back else "unhold", plan, before=before, after=after, reason=why)


def _without_numbers(reasons: Sequence[str]) -> list[str]:
    return [re.sub(r"[0-9.]+", "#", reason) for reason in reasons]


def _reason(plan: ScalingPlan) -> str:
    whys = dict.fromkeys(row["why"] for row in (*plan.moves, *plan.pool))
    return "; ".join(whys)[:1000]
