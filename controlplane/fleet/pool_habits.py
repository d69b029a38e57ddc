"""What the planner learned of models' habits, as rows: who is likely to return, and who is due by the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Max

from controlplane.domain.keepalive import Learned
from controlplane.domain.rhythm import Rhythm
from controlplane.fleet.models import PoolHint

FRESH = timedelta(minutes=30)  # what was learned longer ago says nothing of now


@dataclass(frozen=True, slots=True)
class Habit:
    deployment: str
    chance: float | None
    rhythm: Rhythm | None
    keep: Learned | None = None  # None: as all others


@transaction.atomic
def write(habits: Iterable[Habit], now: datetime) -> None:
    """All that is known now, in place of what was."""
    PoolHint.objects.all().delete()
    PoolHint.objects.bulk_create([_row(habit, now) for habit in habits], batch_size=500)


def learned_at() -> datetime | None:
    """When what is stored was learned; None where nothing is."""
    return PoolHint.objects.aggregate(at=Max("at"))["at"]


def chances(now: datetime) -> dict[str, float]:
    """By deployment: that it is asked for again within ten minutes."""
    told = PoolHint.objects.filter(at__gt=now - FRESH, chance__isnull=False)
    return dict(told.values_list("deployment", "chance"))


def keep_alives(now: datetime) -> dict[str, Learned]:
    """By deployment, where its own idle times say better than the usual one."""
    told = PoolHint.objects.filter(at__gt=now - FRESH, keep_alive_s__isnull=False)
    rows = told.values_list("deployment", "keep_alive_s", "keep_alive_why")
    return {name: Learned(keep_alive_s, why) for name, keep_alive_s, why in rows}


def due(now: datetime, within: timedelta) -> list[str]:
    """Deployments that should be asked for within that time, by their own clock."""
    told = PoolHint.objects.filter(at__gt=now - FRESH, period_s__isnull=False)
    found = []
    for name, period_s, last_at, spread_s in told.values_list("deployment", "period_s", "last_at", "spread_s"):
        at = Rhythm(period_s, last_at.timestamp(), spread_s).due(now.timestamp())
        if at - now.timestamp() - spread_s <= within.total_seconds():
            found.append(name)
    return found


def _row(habit: Habit, now: datetime) -> PoolHint:
    row = PoolHint(deployment=habit.deployment[:120], chance=habit.chance, at=now)
    if habit.keep is not None:
        row.keep_alive_s, row.keep_alive_why = habit.keep.keep_alive_s, habit.keep.why[:255]
    if habit.rhythm is not None:
        row.period_s, row.spread_s = habit.rhythm.period_s, habit.rhythm.spread_s
        row.last_at = datetime.fromtimestamp(habit.rhythm.last, UTC)
    return row
