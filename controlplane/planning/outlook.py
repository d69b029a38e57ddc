"""What people look at of capacity: what is active and was, what is to be expected, and how well that was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.forecast.hazards import DAY_S
from controlplane.fleet.models import Partition
from controlplane.planning import history as past
from controlplane.planning import policy, reserve, slot_sizes
from controlplane.planning.beginning import beginning
from controlplane.planning.forecasting import HORIZONS_S, LEVELS, PACES
from controlplane.planning.models import CapacityPolicy, Forecast, Standing

CALIBRATION_DAYS = 7.0
MOST_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    horizon_s: int
    since: float
    until: float


def outlook(asked: Asked, now: float) -> dict[str, Any]:
    """Times are unix seconds; counts are of models. What is not known is null, never zero."""
    in_force = policy.current()
    keep_alive_s = in_force.keep_alive_s
    mine = Forecast.objects.filter(horizon_s=asked.horizon_s, keep_alive_s=keep_alive_s).defer("shares")
    within = mine.filter(at__gte=_moment(asked.since), at__lt=_moment(asked.until))
    rows = list(within.order_by("-at")[:MOST_POINTS])[::-1]
    begin = past.first()
    return {
        "now": now,
        "horizon_s": asked.horizon_s,
        "keep_alive_s": keep_alive_s,
        "most_cold": in_force.most_cold,
        "aim": in_force.aim,
        "gpu_hour_price": in_force.gpu_hour_price,
        "cold_price": in_force.cold_price,
        "held": held(in_force, now),
        "levels": list(LEVELS),
        "recorded_since": begin,
        "recorded_s": 0.0 if begin is None else sum(end - start for start, end in past.recorded(begin, now)),
        "outage_since": _outage(now),
        "beginning": _beginning(now),
        "slots": Partition.objects.count(),
        "newest": [_newest(row) for horizon in HORIZONS_S if (row := _last(horizon, keep_alive_s)) is not None],
        "forecasts": [_said(row) for row in rows],
        "calibration": calibration(asked.horizon_s, keep_alive_s, now),
        "standing": [_standing(one) for one in Standing.objects.all()],
    }


def held(row: CapacityPolicy, now: float) -> dict[str, Any] | None:
    """What is to be held now and why, in slots and in GPUs; None: it is not known."""
    found = reserve.wanted_by(row, now)
    if found is None:
        return None
    there, packed = slot_sizes.there(), slot_sizes.packed(found.sizes)
    every = sorted(found.sizes.keys() | there.keys())
    return {
        "slots": found.slots,
        "reason": found.why,
        "sizes": [{"gpus": gpus, "slots": found.sizes.get(gpus, 0), "there": there.get(gpus, 0)} for gpus in every],
        "gpus": sum(gpus * slots for gpus, slots in found.sizes.items()),
        "nodes": packed[0] if packed else None,
        "node_gpus": packed[1] if packed else None,
        "assumed": found.assumed,
    }


def calibration(horizon_s: int, keep_alive_s: int, now: float) -> dict[str, Any]:
    """Of the forecasts of the last days that are over: how many came to no more than was told, by level."""
    over = Forecast.objects.filter(
        horizon_s=horizon_s, keep_alive_s=keep_alive_s, at__gte=_moment(now - CALIBRATION_DAYS * DAY_S)
    ).exclude(peak=None)
    rows = list(over.values_list("values", "peak", "replayed"))
    told = [(values, peak) for values, peak, _ in rows if len(values) == len(LEVELS)]
    return {
        "windows": len(told),
        "apart": round(len(told) * min(1.0, PACES[horizon_s].step_s / horizon_s), 1),
        "replayed": sum(replayed for *_, replayed in rows),
        "days": CALIBRATION_DAYS,
        "covered": [_share([peak <= values[place] for values, peak in told]) for place in range(len(LEVELS))],
    }


def _beginning(now: float) -> dict[str, Any] | None:
    found = beginning(now)
    if found is None:
        return None
    return {
        "recorded_since": found.recorded_since,
        "models": found.models,
        "gateways": found.gateways,
        "first_at": found.first_at and found.first_at[HORIZONS_S[0]],
        "what_if_at": found.what_if_at,
        "worker_silent": found.is_worker_silent,
    }


def _outage(now: float) -> float | None:
    """Since when nothing is on record, while that lasts."""
    gaps = past.outages(now - DAY_S, now)
    return gaps[-1].start if gaps and gaps[-1].end >= now else None


def _last(horizon_s: int, keep_alive_s: int) -> Forecast | None:
    return Forecast.objects.filter(horizon_s=horizon_s, keep_alive_s=keep_alive_s).order_by("-at").first()


def _newest(row: Forecast) -> dict[str, Any]:
    return {
        **_said(row),
        "horizon_s": row.horizon_s,
        "method": row.method,
        "shares": row.shares,
        "by_size": row.by_size,
    }


def _said(row: Forecast) -> dict[str, Any]:
    return {
        "at": row.at.timestamp(),
        "active": row.active,
        "values": row.values,
        "peak": row.peak,
        "replayed": row.replayed,
        "models": row.known_models,
        "recorded_s": row.recorded_s,
    }


def _standing(one: Standing) -> dict[str, Any]:
    return {
        "keep_alive_s": one.keep_alive_s,
        "at": one.at.timestamp(),
        "days": one.days,
        "models": one.models_seen,
        "expected": one.expected,
        "aegaeon": one.aegaeon,
        "activations_per_hour": one.activations_per_hour,
        "curve": one.curve,
        "by_size": one.by_size,
    }


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
