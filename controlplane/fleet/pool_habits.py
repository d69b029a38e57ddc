"""What the planner learned of models' habits, as rows: how likely an idle one is to be asked for, and which clock it
follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Count, Max

from controlplane.domain import prewarming
from controlplane.domain.keepalive import Learned
from controlplane.domain.recurrence import EDGES_S, Recurrence
from controlplane.domain.rhythm import AGREE, Rhythm
from controlplane.fleet.models import PoolHint
from controlplane.fleet.pool_use import Use

FRESH = timedelta(minutes=30)  # what was learned longer ago says nothing of now


@dataclass(frozen=True, slots=True)
class Habit:
    deployment: str
    recurrence: Recurrence | None
    rhythm: Rhythm | None
    keep: Learned | None = None  # None: as all others

    def idle_s(self, now: datetime, last_at: datetime | None) -> float | None:
        """By what is on record or, where that is later, by what gateways last had of it. None: not known."""
        if self.recurrence is not None:
            return self.recurrence.idle_s(now.timestamp(), last_at.timestamp() if last_at else None)
        return (now - last_at).total_seconds() if last_at else None


@dataclass(slots=True)
class _Known:
    """What this process made of the rows last, which are replaced all at once; `stamp` tells which."""

    stamp: object = None
    habits: Mapping[str, Habit] = field(default_factory=dict)


_known = _Known()


@transaction.atomic
def write(habits: Iterable[Habit], now: datetime) -> None:
    """All that is known now, in place of what was."""
    _known.stamp = None
    PoolHint.objects.all().delete()
    PoolHint.objects.bulk_create([_row(habit, now) for habit in habits], batch_size=500)


def learned_at() -> datetime | None:
    """When what is stored was learned; None where nothing is."""
    return PoolHint.objects.aggregate(at=Max("at"))["at"]


def read(now: datetime, names: Iterable[str]) -> list[Habit]:
    """Of these deployments, where anything was learned lately that tells when they are asked for."""
    learned = _learned(now)
    return [learned[name] for name in names if name in learned]


def _learned(now: datetime) -> Mapping[str, Habit]:
    """By deployment. Asked for each second and learned each ten minutes: rows are made values of once."""
    stamp = PoolHint.objects.aggregate(at=Max("at"), last=Max("pk"), count=Count("pk"))
    if stamp["at"] is None or stamp["at"] <= now - FRESH:
        return {}
    if _known.stamp != stamp:
        rows = PoolHint.objects.filter(at=stamp["at"]).defer("keep_alive_why")
        _known.habits, _known.stamp = {row.deployment: _habit(row) for row in rows}, stamp
    return _known.habits


def chances(now: datetime, uses: Mapping[str, Use], names: Iterable[str], within_s: float) -> dict[str, float]:
    """By deployment, of those with something learned: that it is asked for again within that time. `uses`: what
    gateways had of each, where that is known."""
    found = {}
    for habit in read(now, names):
        idle_s = habit.idle_s(now, uses.get(habit.deployment, Use()).last_at)
        chance = prewarming.chance(
            habit.recurrence, habit.rhythm, now=now.timestamp(), idle_s=idle_s or 0.0, within_s=within_s
        )
        if chance is not None:
            found[habit.deployment] = chance
    return found


def keep_alives(now: datetime) -> dict[str, Learned]:
    """By deployment, where its own idle times say better than the usual one."""
    told = PoolHint.objects.filter(at__gt=now - FRESH, keep_alive_s__isnull=False)
    rows = told.values_list("deployment", "keep_alive_s", "keep_alive_why")
    return {name: Learned(keep_alive_s, why) for name, keep_alive_s, why in rows}


def _habit(row: PoolHint) -> Habit:
    rhythm = recurrence = None
    if row.rates is not None and row.idle_since is not None and len(row.rates) == len(EDGES_S):
        recurrence = Recurrence(tuple(row.rates), row.idle_since.timestamp())
    if row.period_s is not None and row.last_at is not None and row.spread_s is not None:
        kept = AGREE if row.kept is None else row.kept
        rhythm = Rhythm(row.period_s, row.last_at.timestamp(), row.spread_s, kept)
    return Habit(row.deployment, recurrence, rhythm)


def _row(habit: Habit, now: datetime) -> PoolHint:
    row = PoolHint(deployment=habit.deployment[:120], at=now)
    if habit.recurrence is not None:
        row.rates = list(habit.recurrence.rates)
        row.idle_since = datetime.fromtimestamp(habit.recurrence.since, UTC)
    if habit.keep is not None:
        row.keep_alive_s, row.keep_alive_why = habit.keep.keep_alive_s, habit.keep.why[:255]
    if habit.rhythm is not None:
        row.period_s, row.spread_s, row.kept = habit.rhythm.period_s, habit.rhythm.spread_s, habit.rhythm.kept
        row.last_at = datetime.fromtimestamp(habit.rhythm.last, UTC)
    return row
