"""What the planner wants of the pool: slots, by the forecast, the policy and its floors, and the keep-alive."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from controlplane.fleet.services import pool
from controlplane.planning import policy, reserve
from controlplane.teams import floors


def look(now: datetime | None = None) -> list[str]:
    """Tell the pool what is wanted, and sweep it once; names who was made to leave."""
    now, row = now or timezone.now(), policy.current()
    wanted = reserve.wanted_by(row, now.timestamp())
    slots, reason = (wanted.slots, wanted.why) if wanted else (None, "nothing is forecast yet")
    sizes = wanted.sizes if wanted else None
    pool.aim(keep_alive_s=row.keep_alive_s, slots=slots, reason=reason, now=now, by_gpus=sizes)
    return pool.sweep(now, floors=floors.read())
