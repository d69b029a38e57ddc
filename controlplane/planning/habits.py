"""Learns each model's habits from the history of demand, for the pool: how likely an idle one is to return soon, and
which ones are asked for by the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from controlplane.domain.forecast import activity, hazards
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.rhythm import rhythm_of
from controlplane.fleet import pool_habits
from controlplane.fleet.pool_habits import Habit
from controlplane.planning import history, policy

LOOK_BACK_S = 8 * DAY_S
EVERY_S = 600.0
WITHIN_S = 600.0


def refresh(now: float) -> int:
    """Learn anew, if what is stored was learned long enough ago; of how many models."""
    learned = pool_habits.learned_at()
    if learned is not None and 0 <= now - learned.timestamp() < EVERY_S:
        return 0
    found = learn(now)
    pool_habits.write(found, datetime.fromtimestamp(now, UTC))
    return len(found)


def learn(now: float) -> list[Habit]:
    """Of every model on record in the last days."""
    requests = history.requests(now - LOOK_BACK_S, now)
    keep_alive_s = float(policy.current().keep_alive_s)
    runs = activity.runs(requests, keep_alive_s).known_at(now)
    if not len(runs.model):
        return []
    gaps = history.outages(now - LOOK_BACK_S, now)
    known, there = hazards.learn(runs, now, LOOK_BACK_S, gaps), hazards.at(runs, now)
    chance = hazards.returning(known, there, now, WITHIN_S)
    begins = np.split(runs.start, np.searchsorted(runs.model, np.arange(1, runs.count)))
    return [
        Habit(name, float(chance[place]), rhythm_of(begins[place].tolist()))
        for place, name in enumerate(requests.models)
    ]
