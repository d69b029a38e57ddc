"""What the pool holds free: as many slots as models are likely to come for, by the newest forecast.

The forecast says how many models will be active at once, at most, over the next ten minutes. Those that are active now
have their slots; for the rest, slots are emptied before anybody asks."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from controlplane.fleet.services import pool
from controlplane.planning.models import Forecast

HORIZON_S = 600
FRESH_S = 1500.0  # forecasts come every ten minutes, and the first after a start late


def look() -> list[str]:
    """Sweep the pool once; names who was made to leave."""
    return pool.sweep(timezone.now(), free=to_hold_free())


def to_hold_free() -> int:
    """Slots: what the forecast says may come at the risk that is allowed, and no fewer than are configured. Without a
    fresh forecast the latter."""
    keep_alive_s, least = settings.CAPACITY_KEEP_ALIVE_S, settings.POOL_FREE
    newest = Forecast.objects.filter(
        horizon_s=HORIZON_S, keep_alive_s=keep_alive_s, replayed=False,
        at__gt=timezone.now() - timedelta(seconds=FRESH_S),
    ).order_by("-at").first()  # fmt: skip
    if newest is None or newest.active is None:
        return least
    risk = 1.0 - settings.CAPACITY_MOST_COLD
    told = [value for level, value in zip(newest.levels, newest.values, strict=True) if level >= risk - 1e-9]
    return max(least, (told or newest.values[-1:])[0] - newest.active)
