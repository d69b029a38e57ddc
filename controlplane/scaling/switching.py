"""A plan that takes a deployment from aggregated engines to disaggregated ones, or back: proposed alone, when nothing
else is to be done, so that it never keeps what presses from being applied. More engines of a kind that keeps the
objectives with no number of them do not press, unless they would be applied automatically and the switch would not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.domain import switching
from controlplane.domain.allotment import Want
from controlplane.domain.switching import Compared
from controlplane.fleet.models import Deployment
from controlplane.scaling import sharing
from controlplane.scaling.floors import Floor
from controlplane.scaling.gathering import Fleet, Gathered
from controlplane.scaling.models import ScalingPlan, ScalingPolicy
from controlplane.scaling.sharing import Shared
from workers.contract import Role

DECIDED = (ScalingPlan.State.APPLIED, ScalingPlan.State.DISMISSED)


def share(
    gathered: Sequence[Gathered],
    wants: Sequence[Want],
    fleet: Fleet,
    *,
    usual: Shared,
    rules: ScalingPolicy,
    now: datetime,
) -> Shared | None:
    """Of the deployment that gains most, what it takes; None: there is none, something else is to be done, or there is
    no room for its engines. `usual`: what all `wants` take without a switch."""
    told = [(one, counts) for one in gathered if (counts := switching.wanted(_compared(one, now))) is not None]
    if told and _is_to_do(usual):
        pressed = rules.auto_apply and not rules.auto_switch
        told = [(one, counts) for one, counts in told if _only(one) and not pressed]
        waiting = {one.deployment.pk for one, _ in told}
        wants = [_no_more(want) if want.lane[0] in waiting else want for want in wants]
        if not told or _is_to_do(sharing.share(wants, fleet, now)):
            return None
    for one, counts in sorted(told, key=lambda pair: _ratio(pair[0])):
        mine = one.deployment.pk
        others = [replace(want, wanted=want.count) for want in wants if want.lane[0] != mine]
        shared = sharing.share([*others, *_wants(one, counts)], fleet, now)
        lacks = any(lane[0] == mine for lane in shared.allotment.short)
        if shared.allotment.moves and not lacks and not shared.pool:
            return shared
    return None


def _is_to_do(shared: Shared) -> bool:
    return bool(shared.allotment.moves or shared.pool)


def _only(one: Gathered) -> bool:
    return one.floor.other is not None and one.floor.other.only


def _no_more(want: Want) -> Want:
    return replace(want, wanted=min(want.wanted, want.count))


def clear_since(before: datetime | None, floor: Floor, now: datetime) -> datetime | None:
    """Since when the other kind has been clearly cheaper, or the only one that keeps the objectives, after this look;
    between two comparisons as before."""
    if floor.other is None:
        return before if floor.coming.rate > 0 else None
    return (before or now) if switching.is_clear(floor.other.ratio, only=floor.other.only) else None


def _ratio(one: Gathered) -> float:
    """What keeps no objective now comes first."""
    return 0.0 if _only(one) else (one.floor.other.ratio or 1.0 if one.floor.other else 1.0)


def _compared(one: Gathered, now: datetime) -> Compared:
    since = [look.other_since for look in one.looks.values() if look.other_since is not None]
    other = one.floor.other
    return Compared(
        ratio=other.ratio if other else None,
        counts=other.counts if other else None,
        only=_only(one),
        clear_s=(now - min(since)).total_seconds() if since else 0.0,
        rested_s=_rested_s(one.deployment, now),
        bounds={
            role: (getattr(one.deployment, f"min_{role.value}"), getattr(one.deployment, f"max_{role.value}"))
            for role in Role
        },
    )


def _rested_s(deployment: Deployment, now: datetime) -> float | None:
    lately = ScalingPlan.objects.filter(
        switches=True, state__in=DECIDED, decided_at__gt=now - timedelta(seconds=switching.REST_S)
    )
    told = [plan.decided_at for plan in lately if any(move["deployment"] == deployment.pk for move in plan.moves)]
    return min((now - at).total_seconds() for at in told if at) if told else None


def _wants(one: Gathered, counts: dict[Role, int]) -> list[Want]:
    text = one.floor.other.text if one.floor.other else ""
    have = {role: one.lanes[role].count if role in one.lanes else 0 for role in Role}
    return [
        Want(
            lane=(one.deployment.pk, role),
            count=have[role],
            wanted=counts[role],
            why=f"{one.deployment.name} {role.value} {have[role]} to {counts[role]}, another kind of engines: {text}",
            least=counts[role],
            priority=one.deployment.priority,
        )
        for role in Role
        if have[role] or counts[role]
    ]
