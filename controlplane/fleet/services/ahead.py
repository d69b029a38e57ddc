"""Wakes pooled models before anybody asks for them, by what was learned of their habits, and notes who then came."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from statistics import median

from django.conf import settings

from controlplane.domain import prewarming
from controlplane.domain.pool import Slot
from controlplane.domain.prewarming import Due, Sleeper
from controlplane.domain.tenancy import NONE, Floors
from controlplane.fleet import pool_habits, pool_keep, pool_use, sleeping
from controlplane.fleet.models import Activation, Deployment
from controlplane.fleet.services import waking

AHEAD, READY, STARTING = Activation.Cause.AHEAD, Activation.State.READY, Activation.State.STARTING
LONGEST_S = 300.0  # so long before it is asked for a model may be woken, however long it takes to start
UNKNOWN_S = 60.0  # a start that was never measured
MARGIN_S = 10.0  # for a look that comes late, and an agent that does
REMEMBERED = timedelta(days=1)  # starts in vain
LATELY = timedelta(hours=2)
STARTS = 200  # that are looked at


def look(views: Sequence[Slot], *, held: int, now: datetime, floors: Floors = NONE) -> None:
    """`held`: free slots that are for whoever comes."""
    keep_alive_s = pool_keep.read(now).usual_s
    uses = pool_use.read(now) or {}
    _note_who_came(uses, keep_alive_s, now)
    free = sum(view.resident is None for view in views)
    under_way = Activation.objects.filter(cause=AHEAD, state=STARTING).count()
    if not settings.POOL_PREDICT or not free or under_way >= prewarming.AT_ONCE:
        return
    found = _due(uses, keep_alive_s, now)
    chosen = prewarming.choose(found, free=free, reserved=held, under_way=under_way)
    if chosen:
        waking.wake({one.name: waking.Ask(0, AHEAD, one.reason) for one in chosen}, now=now, floors=floors)


def _due(uses: Mapping[str, pool_use.Use], keep_alive_s: float, now: datetime) -> list[Due]:
    asleep = Deployment.objects.filter(mode=Deployment.Mode.POOLED, partitions__isnull=True)
    pairs = dict(asleep.values_list("name", "pool_shape"))
    sleepers = [
        Sleeper(
            habit.deployment,
            habit.recurrence,
            habit.rhythm,
            idle_s or 0.0,
            LONGEST_S,
            slots=2 if pairs[habit.deployment] == Deployment.PoolShape.PAIR else 1,
        )
        for habit in pool_habits.read(now, pairs)
        for idle_s in [habit.idle_s(now, uses.get(habit.deployment, pool_use.Use()).last_at)]
    ]
    at = now.timestamp()
    near = [one for one in sleepers if prewarming.due(one, now=at, keep_alive_s=keep_alive_s)]
    due = (prewarming.due(one, now=at, keep_alive_s=keep_alive_s) for one in _told(near, now))
    return [one for one in due if one is not None]


def _told(sleepers: Sequence[Sleeper], now: datetime) -> list[Sleeper]:
    """With how long each takes to start, and how often it was woken in vain."""
    if not sleepers:
        return []
    names = [one.name for one in sleepers]
    rows = Activation.objects.filter(deployment__name__in=names, state=READY, placed_at__isnull=False).order_by("-id")
    asleep = sleeping.names()
    took: dict[str, list[float]] = defaultdict(list)
    missed, over = dict.fromkeys(names, 0), set()
    columns = ("deployment__name", "cause", "placed_at", "ended_at", "came_at", "woken")
    for name, cause, placed_at, ended_at, came_at, woken in rows.values_list(*columns)[:STARTS]:
        if woken == (name in asleep):  # a wake says little of a start, nor a start of a wake
            took[name].append((ended_at - placed_at).total_seconds())
        if cause == AHEAD and name not in over and ended_at > now - REMEMBERED:
            if came_at is None:
                missed[name] += 1
            else:
                over.add(name)
    return [
        replace(
            one, start_s=min(LONGEST_S, median(took.get(one.name, [UNKNOWN_S])) + MARGIN_S), missed=missed[one.name]
        )
        for one in sleepers
    ]


def _note_who_came(uses: Mapping[str, pool_use.Use], keep_alive_s: float, now: datetime) -> None:
    """Until a keep-alive after it was ready."""
    rows = Activation.objects.filter(cause=AHEAD, came_at=None, state__in=(STARTING, READY), asked_at__gt=now - LATELY)
    for row in rows.select_related("deployment"):
        last_at = uses.get(row.deployment.name, pool_use.Use()).last_at
        if last_at is None or last_at <= row.asked_at:
            continue
        if row.ended_at is None or last_at <= row.ended_at + timedelta(seconds=keep_alive_s):
            Activation.objects.filter(pk=row.pk).update(came_at=last_at)
