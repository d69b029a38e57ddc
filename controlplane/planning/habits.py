"""Learns each model's habits from the history of demand, for the pool: how likely an idle one is to return soon, which
ones are asked for by the clock, and how long each is worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from controlplane.domain import keepalive, recurrence
from controlplane.domain.forecast import activity
from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.rhythm import rhythm_of
from controlplane.fleet import pool_habits
from controlplane.fleet.pool_habits import Habit
from controlplane.planning import history, policy
from controlplane.planning.history import Reading

LOOK_BACK_S = 8 * DAY_S
EVERY_S = 600.0


def refresh(now: float, reading: Reading | None = None) -> int:
    """Learn anew, if what is stored was learned long enough ago; of how many models. `reading`: of this moment, where
    others have read."""
    learned = pool_habits.learned_at()
    if learned is not None and 0 <= now - learned.timestamp() < EVERY_S:
        return 0
    found = learn(now, reading)
    pool_habits.write(found, datetime.fromtimestamp(now, UTC))
    return len(found)


def learn(now: float, reading: Reading | None = None) -> list[Habit]:
    """Of every model on record in the last days."""
    requests = (reading or Reading(now)).requests(now - LOOK_BACK_S)
    keep_alive_s = float(policy.current().keep_alive_s)
    runs = activity.runs(requests, keep_alive_s).known_at(now)
    if not len(runs.model):
        return []
    gaps = history.outages(now - LOOK_BACK_S, now)
    again = recurrence.learn(activity.runs(requests, 0.0).known_at(now), now, gaps)
    begins = np.split(runs.start, np.searchsorted(runs.model, np.arange(1, runs.count)))
    idle = idle_times(requests, gaps)
    return [
        Habit(
            name,
            again[place],
            rhythm_of(begins[place].tolist()),
            keepalive.learn(idle[place], usual_s=keep_alive_s, resolution_s=history.MINUTE_S),
        )
        for place, name in enumerate(requests.models)
    ]


def idle_times(requests: Requests, outages: Sequence[Outage] = ()) -> list[Floats]:
    """Of each model, in seconds: from the end of what was asked to the next request. Those that an outage lies in may
    have been none."""
    if not requests.models:
        return []
    busy = activity.runs(requests, 0.0)
    same = busy.model[1:] == busy.model[:-1]
    since, until, model = busy.end[:-1][same], busy.start[1:][same], busy.model[1:][same]
    sure = np.ones(len(since), bool)
    for one in outages:
        sure &= (until <= one.start) | (since >= one.end)
    since, until, model = since[sure], until[sure], model[sure]
    return np.split(until - since, np.searchsorted(model, np.arange(1, busy.count)))
