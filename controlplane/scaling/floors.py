"""How many engines a deployment needs for what is to come: the rate by its own minutes, the engines by a replay of its
last requests at that rate. A replay takes seconds, so an answer holds for ten minutes, or until the rate leaves it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from controlplane.costs.prices import gpu_hours_at
from controlplane.domain import demand
from controlplane.domain.demand import Coming
from controlplane.domain.forecast.hazards import Outage
from controlplane.domain.sizing import Slo
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Deployment, Partition
from controlplane.fleet.services.exclusive import OPEN
from controlplane.planning import history, lengths, sizes
from controlplane.planning.offers import offers
from controlplane.scaling import kinds
from controlplane.scaling.kinds import Asked, Other
from controlplane.scaling.models import LaneLook, ScalingPlan
from workers.contract import Role

FRESH = timedelta(minutes=10)
LOOK_BACK = timedelta(minutes=demand.LOOK_BACK)
HOURS = 24.0  # whose requests are replayed
SHARE = 0.95  # of requests within the objectives


@dataclass(frozen=True, slots=True)
class Floor:
    """`counts`: engines by role, None where it is not known how many; `why` says what for, or what is missing. `other`:
    the same aggregated, or disaggregated, whichever it is not; None: not compared."""

    counts: Mapping[Role, int] | None
    why: str
    coming: Coming
    at: datetime
    other: Other | None = None


@dataclass(frozen=True, slots=True)
class Sure:
    """How surely the rate, and the next hour's mean lengths, are to stay below what a floor is made for; 0 to 1."""

    rate: float
    lengths: float


@dataclass(frozen=True, slots=True)
class When:
    """Now, the times before it of which nothing is on record, and what a GPU's hour costs by node."""

    now: datetime
    outages: Sequence[Outage]
    prices: Mapping[str, float]

    @classmethod
    def at(cls, now: datetime) -> When:
        return cls(now, history.outages((now - LOOK_BACK).timestamp(), now.timestamp()), gpu_hours_at(now))


def floor(deployment: Deployment, looks: Mapping[str, LaneLook], sure: Sure, when: When) -> Floor:
    """`looks`: the last of each of its roles."""
    now, coming = when.now, _coming(deployment.name, sure.rate, when)
    if _is_switching(deployment):
        return Floor(None, "a change is at work that gives it the other kind of engines", coming, now)
    apart = deployment.partitions.filter(role__in=(Role.PREFILL.value, Role.DECODE.value)).exists()
    about = kinds.basis(deployment.slo_ttft_ms, deployment.slo_itl_ms, sure.lengths, apart=apart)
    other = kinds.held(looks, about, coming.rate, now)
    # A comparison that ended is made anew at once, with the size: a plan to switch must not go and come back with it.
    compared = any(look.other_at is not None for look in looks.values())
    if (other is not None or not compared) and (kept := _still_good(looks, apart, coming, now)) is not None:
        return replace(kept, other=other)
    if coming.rate <= 0.0:
        return Floor({}, "nothing is asked for", coming, now)
    if not deployment.slo_ttft_ms or not deployment.slo_itl_ms:
        return _unsized(deployment, "it has no objective for the first token and for tokens", coming, now)
    slo = Slo(float(deployment.slo_ttft_ms), float(deployment.slo_itl_ms), SHARE)
    try:
        trace, ahead = sizes.recorded(deployment, HOURS), lengths.coming(deployment.name, now.timestamp())
    except FleetError as error:
        return _unsized(deployment, str(error), coming, now)
    trace = lengths.lengthened(trace, ahead, sure.lengths, lengths.longest(deployment))
    transfer = sizes.transfer_ms_per_token(deployment)
    asked = Asked(trace.at_rate(coming.rate), coming.rate, slo, apart, transfer, sure.lengths, coming.peak)
    return _sized(deployment, asked, coming, when, other)


def _is_switching(deployment: Deployment) -> bool:
    """Until that change is at its end it has some of both kinds, and a floor would ask for what goes, or for what comes
    anyway."""
    plans = ScalingPlan.objects.filter(switches=True, change__state__in=OPEN)
    return any(move["deployment"] == deployment.pk for plan in plans for move in plan.moves)


def _coming(name: str, level: float, when: When) -> Coming:
    """Of gateways and of imports; of a burst of several minutes each has its part. Minutes without a request had none,
    back to the first one that is on record; but for outages."""
    end = when.now.replace(second=0, microsecond=0).timestamp()
    found = history.requests(end - LOOK_BACK.total_seconds(), end, model=name)
    if not len(found.at):
        return demand.coming([], level=level)
    first = math.floor(found.at.min() / 60.0) * 60.0
    arrivals = np.zeros(int((end - first) // 60))
    begun = ((found.at - first) // 60).astype(np.int64)
    lasted = np.maximum(1, np.ceil((np.minimum(found.until, end) - found.at) / 60.0)).astype(np.int64)
    for start, minutes, number in zip(begun.tolist(), lasted.tolist(), found.number.tolist(), strict=True):
        arrivals[start : start + minutes] += number / minutes
    for outage in when.outages:
        since, until = (max(0.0, (at - first) / 60.0) for at in (outage.start, outage.end))
        arrivals[math.floor(since) : math.ceil(min(until, len(arrivals)))] = np.nan
    return demand.coming(arrivals, level=level)


def _still_good(looks: Mapping[str, LaneLook], apart: bool, coming: Coming, now: datetime) -> Floor | None:
    """None as well where it is of the other kind of engines: after a switch it would ask for the old ones back."""
    told = [look for look in looks.values() if look.floor is not None and look.floor_at is not None]
    if not told or any(now - look.floor_at > FRESH for look in told if look.floor_at):
        return None
    sized_for = told[0].rate_coming or 0.0
    if demand.has_left(sized_for, coming.rate):
        return None
    counts = {Role(look.role): look.floor for look in told if look.floor is not None}
    if any(counts.get(role) for role in (Role.PREFILL, Role.DECODE)) != apart:
        return None
    kept = Coming(coming.now, sized_for, coming.why)
    return Floor(counts, told[0].floor_why, kept, told[0].floor_at or now)


def _unsized(deployment: Deployment, why: str, coming: Coming, now: datetime) -> Floor:
    """One that is asked for and has no engine at all shall have one, however fast that is."""
    if coming.now > 0 and not deployment.partitions.exists():
        return Floor({Role.AGGREGATED: 1}, f"it is asked for and has no engine; {why}"[:255], coming, now)
    return Floor(None, why[:255], coming, now)


def _sized(deployment: Deployment, asked: Asked, coming: Coming, when: When, other: Other | None) -> Floor:
    """`other`: as the other kind of engines was compared lately."""
    here, now = _kinds(deployment), when.now
    found, missing = offers(deployment, when.prices)
    able = [one for one in found if (one.offer.gpu, one.offer.tp) in here]
    if not able:
        why = "; ".join(missing) or "no partition has GPUs that were measured or that specs are known of"
        return _unsized(deployment, f"how fast it would be is not known: {why}", coming, now)
    judged = kinds.fewest(asked, able, apart=asked.apart)
    if other is None or not other.is_of(judged):
        other = kinds.compare(asked, able, judged, now)
    what = f"{coming.rate:.3g} requests a second ({coming.why})"
    if judged is None:
        why = f"no number of its engines keeps the objectives at {what}"
        return replace(_unsized(deployment, why, coming, now), other=other)
    size = judged.size
    counts = {Role.DECODE if asked.apart else Role.AGGREGATED: size.decode.count}
    if size.prefill is not None:
        counts[Role.PREFILL] = size.prefill.count
    why = f"{size.told} for {what}: {judged.met:.1%} within the objectives"
    return Floor(counts, why[:255], coming, now, other)


def _kinds(deployment: Deployment) -> set[tuple[str, int]]:
    """(GPU, GPUs of an engine) of its own partitions, of free ones where it has none."""
    rows = Partition.objects.prefetch_related("gpus")
    own = list(rows.filter(deployment=deployment)) or list(rows.filter(deployment__isnull=True))
    return {
        (name, len(row.gpus.all())) for row in own for name in Counter(gpu.name for gpu in row.gpus.all())
    }  # fmt: skip
