"""A plan that takes a deployment from aggregated engines to disaggregated ones, or back: proposed alone, when nothing
else is to be done, so that it never keeps what presses from being applied. More engines of a kind that keeps the
objectives with no number of them do not press, unless they would be applied at this look and the switch would not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.domain import switching
from controlplane.domain.allotment import Want
from controlplane.domain.switching import Compared
from controlplane.fleet.models import Deployment
from controlplane.scaling import drafts, sharing
from controlplane.scaling.floors import Floor
from controlplane.scaling.gathering import Fleet, Gathered
from controlplane.scaling.kinds import Other
from controlplane.scaling.models import LaneLook, ScalingPlan, ScalingPolicy
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
    presses = _is_to_do(usual)
    comes = bool(told) and presses and drafts.goes_by_itself(usual, rules, now, switches=False)
    for one, counts in sorted(told, key=lambda pair: _ratio(pair[0])):
        if presses and not (_only(one) and _gives_way(one, wants, fleet, now)):
            continue
        shared = _room(one, counts, wants, fleet, now)
        if shared is not None and not (comes and not drafts.goes_by_itself(shared, rules, now, switches=True)):
            return shared
    return None


def _gives_way(one: Gathered, wants: Sequence[Want], fleet: Fleet, now: datetime) -> bool:
    """Whether all that is to do is to give this deployment more engines of a kind that keeps its objectives with no
    number of them."""
    mine = one.deployment.pk
    less = [_no_more(one, want) if want.lane[0] == mine else want for want in wants]
    return not _is_to_do(sharing.share(less, fleet, now))


def _room(
    one: Gathered, counts: Mapping[Role, int], wants: Sequence[Want], fleet: Fleet, now: datetime
) -> Shared | None:
    """What the switch takes; None where not all of its engines have room."""
    mine = one.deployment.pk
    others = [replace(want, wanted=want.count) for want in wants if want.lane[0] != mine]
    shared = sharing.share([*others, *_wants(one, counts)], fleet, now)
    lacks = any(lane[0] == mine for lane in shared.allotment.short)
    return shared if shared.allotment.moves and not lacks and not shared.pool else None


def _is_to_do(shared: Shared) -> bool:
    return bool(shared.allotment.moves or shared.pool)


def _only(one: Gathered) -> bool:
    return one.floor.other is not None and one.floor.other.only


def _no_more(one: Gathered, want: Want) -> Want:
    """What it has, its least, and engines in the place of lost ones: those come whatever else does."""
    lane = one.lanes[want.lane[1]]
    return replace(want, wanted=min(want.wanted, max(lane.least, lane.count + lane.lost)))


def clear_since(looks: Mapping[str, LaneLook], floor: Floor, now: datetime) -> datetime | None:
    """Since when the other kind has been clearly cheaper, or the only one that keeps the objectives, after this look:
    at every comparison, for the same reason and the same aims. `looks`: the last of each role."""
    other = floor.other
    if other is None or not switching.is_clear(other.ratio, only=other.only):
        return None
    return min((look.other_since for look in looks.values() if look.other_since and _is_same(look, other)), default=now)


def _is_same(look: LaneLook, other: Other) -> bool:
    return (look.other_basis, look.other_missed) == (other.basis, other.missed)


def _ratio(one: Gathered) -> float:
    """What keeps no objective now comes first."""
    return 0.0 if _only(one) else (one.floor.other.ratio or 1.0 if one.floor.other else 1.0)


def _compared(one: Gathered, now: datetime) -> Compared:
    since, other = clear_since(one.looks, one.floor, now), one.floor.other
    return Compared(
        ratio=other.ratio if other else None,
        counts=other.counts if other else None,
        only=_only(one),
        clear_s=(now - since).total_seconds() if since else 0.0,
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


def _wants(one: Gathered, counts: Mapping[Role, int]) -> list[Want]:
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
