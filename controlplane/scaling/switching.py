"""A plan that takes a deployment from aggregated engines to disaggregated ones, or back: proposed alone, when nothing
else is to be done, so that it never keeps what presses from being applied."""

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
from controlplane.scaling.models import ScalingPlan
from controlplane.scaling.sharing import Shared
from workers.contract import Role

DECIDED = (ScalingPlan.State.APPLIED, ScalingPlan.State.DISMISSED)


def share(gathered: Sequence[Gathered], wants: Sequence[Want], fleet: Fleet, now: datetime) -> Shared | None:
    """Of the deployment that gains most, what it takes; None: there is none, or no room for its engines."""
    told = [(one, counts) for one in gathered if (counts := switching.wanted(_compared(one, now))) is not None]
    for one, counts in sorted(told, key=lambda pair: _ratio(pair[0])):
        mine = one.deployment.pk
        others = [replace(want, wanted=want.count) for want in wants if want.lane[0] != mine]
        shared = sharing.share([*others, *_wants(one, counts)], fleet, now)
        lacks = any(lane[0] == mine for lane in shared.allotment.short)
        if shared.allotment.moves and not lacks and not shared.pool:
            return shared
    return None


def clear_since(before: datetime | None, floor: Floor, now: datetime) -> datetime | None:
    """Since when the other kind has been clearly cheaper, after this look; between two comparisons as before."""
    if floor.other is None:
        return before if floor.coming.rate > 0 else None
    return (before or now) if switching.is_clear(floor.other.ratio) else None


def _ratio(one: Gathered) -> float:
    return one.floor.other.ratio or 1.0 if one.floor.other else 1.0


def _compared(one: Gathered, now: datetime) -> Compared:
    since = [look.other_since for look in one.looks.values() if look.other_since is not None]
    other = one.floor.other
    return Compared(
        ratio=other.ratio if other else None,
        counts=other.counts if other else None,
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
