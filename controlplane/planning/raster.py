"""Who was active when, on one day (UTC) or in the last hours: what is drawn as a raster of models and minutes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from controlplane.domain.forecast.activity import Floats, Runs, runs
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import history as past
from controlplane.planning import policy

MOST_MODELS = 200
MERGED_S = 60.0  # a shorter pause between requests is not drawn
BEFORE_S = 6 * 3600.0  # what began earlier and runs on into the day is missed


def raster(day: date, models: int, now: float, only: Collection[str] | None = None) -> dict[str, Any]:
    """The most active models first, at most so many, of these names only where some are given. Times are seconds from
    the day's midnight; `gaps`: of which nothing is on record."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    return _of(midnight, DAY_S, models, now, only)


def lately(hours: int, models: int, now: float, only: Collection[str] | None = None) -> dict[str, Any]:
    """The same of the last hours; times are seconds from their beginning."""
    return _of(now - hours * 3600.0, hours * 3600.0, models, now, only)


def _of(start: float, span_s: float, models: int, now: float, only: Collection[str] | None) -> dict[str, Any]:
    end, keep_alive_s = min(start + span_s, now), policy.current().keep_alive_s
    log = past.requests(start - BEFORE_S, end)
    if only is not None:
        log = log.only([place for place, name in enumerate(log.models) if name in only])
    busy = runs(log, MERGED_S)
    busy = Runs(busy.count, 0.0, busy.model, busy.start, busy.end - MERGED_S)
    active = runs(log, float(keep_alive_s))
    count = len(log.models)
    active_s, today = _seconds(active, count, start, end), log.at >= start
    number = np.bincount(log.model[today], log.number[today], count)
    begun = np.bincount(active.model[(active.start >= start) & (active.start < end)], minlength=count)
    seen = [int(place) for place in np.lexsort((-number, -active_s)) if active_s[place] > 0]
    busy_s = _seconds(busy, count, start, end)
    return {
        "day": datetime.fromtimestamp(start, UTC).date().isoformat(),
        "start": start,
        "span_s": span_s,
        "first_day": _first_day(now),
        "last_day": datetime.fromtimestamp(now, UTC).date().isoformat(),
        "until_s": max(0.0, end - start),
        "keep_alive_s": keep_alive_s,
        "models": len(seen),
        "gaps": _gaps(start, end),
        "rows": [
            {
                "name": log.models[place],
                "requests": int(number[place]),
                "activations": int(begun[place]),
                "busy_s": round(float(busy_s[place])),
                "active_s": round(float(active_s[place])),
                "busy": _drawn(busy, place, start, end),
            }
            for place in seen[:models]
        ],
    }


def _seconds(spans: Runs, count: int, start: float, end: float) -> Floats:
    """Within [start, end), by model."""
    inside = np.clip(spans.end, start, end) - np.clip(spans.start, start, end)
    return np.bincount(spans.model, inside, minlength=count)


def _drawn(spans: Runs, place: int, start: float, end: float) -> list[list[int]]:
    """What keep-alive adds is drawn from these by who shows them; so is what was busy shortly before midnight."""
    mine = (spans.model == place) & (spans.end > start - BEFORE_S) & (spans.start < end)
    return [
        [int(one - start), int(np.ceil(other - start))]
        for one, other in zip(spans.start[mine], np.minimum(spans.end[mine], end), strict=True)
    ]


def _gaps(start: float, end: float) -> list[list[float]]:
    begin = past.first()
    before = [] if begin is None or begin <= start else [[0.0, min(begin, end) - start]]
    return before + [[max(one.start, start) - start, min(one.end, end) - start] for one in past.outages(start, end)]


def _first_day(now: float) -> str:
    begin = past.first()
    return datetime.fromtimestamp(now if begin is None else min(begin, now), UTC).date().isoformat()
