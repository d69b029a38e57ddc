"""What holding ready came to, day by day: slot- and GPU-hours held and used, and windows in which it was too little."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controlplane.domain import holding
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy, Forecast
from controlplane.planning.reserve import HORIZON_S, ONE, at_least, by_forecast

WINDOW_H = HORIZON_S / 3600.0
LEVELS = ("0.95", "0.99")  # whose coverage is told by day


@dataclass(slots=True)
class Day:
    """Of the windows of ten minutes that are over and on record; in slot-hours."""

    windows: int = 0
    replayed: int = 0  # of them, those whose forecast was made afterwards
    short: int = 0  # in which more were active than held
    used: float = 0.0  # by what was active when a window began
    held: float = 0.0  # the reserve, or the peak where that was more: who comes is served, if late
    used_gpu: float = 0.0  # the same two in GPU-hours
    held_gpu: float = 0.0
    peaks: dict[int, int] = field(default_factory=dict)  # the greatest, by the GPUs of a slot
    covered: dict[str, int] = field(default_factory=dict)  # by level: windows whose peak was no more than told


def spent(days: int, now: float) -> dict[str, Any]:
    """The last days (UTC), oldest first, today included, as the policy in force would have held."""
    row = policy.current()
    midnight = now - now % DAY_S
    since = datetime.fromtimestamp(midnight - (days - 1) * DAY_S, UTC)
    over = Forecast.objects.filter(horizon_s=HORIZON_S, keep_alive_s=row.keep_alive_s, at__gte=since)
    by_day: dict[str, Day] = {}
    for told in over.exclude(peak=None).exclude(active=None).defer("shares").order_by("at").iterator(2000):
        _add(by_day.setdefault(told.at.date().isoformat(), Day()), told, row)
    return {
        "window_s": HORIZON_S,
        "price": row.gpu_hour_price,
        "levels": list(LEVELS),
        "days": [{"day": day, **_told(one, row.gpu_hour_price)} for day, one in by_day.items()],
        "total": _told(_sum(by_day.values()), row.gpu_hour_price),
    }


def _add(day: Day, told: Forecast, row: CapacityPolicy) -> None:
    assert told.peak is not None and told.active is not None  # filtered by who asks
    floor = holding.floor_at(policy.floors_of(row), policy.zone_of(row), told.at)
    slots, parts = at_least(floor, by_forecast(row, told)), _parts(told)
    day.windows += 1
    day.replayed += told.replayed
    day.short += any(peak > slots[gpus] for gpus, (_, peak) in parts.items())
    for gpus, (active, peak) in parts.items():
        held = max(slots[gpus], peak) * WINDOW_H
        day.used += active * WINDOW_H
        day.held += held
        day.used_gpu += active * gpus * WINDOW_H
        day.held_gpu += held * gpus
        day.peaks[gpus] = max(day.peaks.get(gpus, 0), peak)
    for level, value in zip(told.levels, told.values, strict=True):
        day.covered[f"{level:g}"] = day.covered.get(f"{level:g}", 0) + (told.peak <= value)


def _parts(told: Forecast) -> dict[int, tuple[int, int]]:
    """(active, peak) by the GPUs of a slot. Where the peak of a size was not kept, what was active stands for it."""
    if not told.by_size:
        return {ONE: (told.active or 0, told.peak or 0)}
    return {one["gpus"]: (one["active"] or 0, one.get("peak") or one["active"] or 0) for one in told.by_size}


def _sum(days: Iterable[Day]) -> Day:
    whole = Day()
    for one in days:
        for name in ("windows", "replayed", "short", "used", "held", "used_gpu", "held_gpu"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        for gpus, peak in one.peaks.items():
            whole.peaks[gpus] = max(whole.peaks.get(gpus, 0), peak)
        for level, number in one.covered.items():
            whole.covered[level] = whole.covered.get(level, 0) + number
    return whole


def _told(one: Day, price: float | None) -> dict[str, Any]:
    """`static`: what it would have been to hold the greatest peak all the while, known afterwards."""
    hours = one.windows * WINDOW_H
    return {
        "windows": one.windows,
        "replayed": one.replayed,
        "short": one.short,
        "used_h": round(one.used, 3),
        "held_h": round(one.held, 3),
        "static_h": round(sum(one.peaks.values()) * hours, 3),
        "used_gpu_h": round(one.used_gpu, 3),
        "held_gpu_h": round(one.held_gpu, 3),
        "static_gpu_h": round(sum(gpus * peak for gpus, peak in one.peaks.items()) * hours, 3),
        "idle_cost": None if price is None else round((one.held_gpu - one.used_gpu) * price, 4),
        "held_cost": None if price is None else round(one.held_gpu * price, 4),
        "covered": _shares(one.covered, one.windows, LEVELS),
    }


def _shares(covered: dict[str, int], windows: int, levels: Sequence[str]) -> list[float | None]:
    return [covered[level] / windows if windows and level in covered else None for level in levels]
