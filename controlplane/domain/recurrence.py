"""How likely an idle model is to be asked for again soon: by how long it has been idle, what its own idle times were,
and the fleet's where it has few. Seconds throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controlplane.domain.forecast.activity import Floats, Runs
from controlplane.domain.forecast.hazards import Outage, idle_times

# Of idle age; the last bucket has no end. Fine, for the chance falls steeply with the age.
EDGES_S = np.array(
    [0, 30, 60, 120, 200, 300, 450, 600, 900, 1200, 2400, 3600, *(3600 * hours for hours in (2, 4, 8, 16, 32, 64))],
    np.float64,
)
OWN = 8.0  # idle times of a model that count as much as the fleet's


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Of one model. `rates`: askings per idle second in each bucket of EDGES_S. `since`: unix seconds, when what is on
    record of it ended last."""

    rates: tuple[float, ...]
    since: float

    def within(self, seconds: float, idle_s: float) -> float:
        """P(it is asked for in the next `seconds`), having been idle for `idle_s`."""
        return float(-np.expm1(-(self._hazard(idle_s + seconds) - self._hazard(idle_s))))

    def wait_s(self, seconds: float, idle_s: float) -> float:
        """The mean time until it is asked for, or `seconds` where that is less."""
        inner = EDGES_S[(idle_s < EDGES_S) & (idle_s + seconds > EDGES_S)]
        edges = [idle_s, *inner.tolist(), idle_s + seconds]
        asleep, total = 1.0, 0.0
        for low, high in pairwise(edges):
            hazard = self._hazard(high) - self._hazard(low)
            asked = -math.expm1(-hazard)
            total += asleep * (high - low) * (asked / hazard if hazard > 0 else 1.0)
            asleep *= 1.0 - asked
        return total

    def idle_s(self, now: float, last: float | None = None) -> float:
        """Since what is on record, or since `last` where that was later."""
        return max(0.0, now - max(self.since, self.since if last is None else last))

    def _hazard(self, age_s: float) -> float:
        """Its integral from the beginning of an idle time."""
        return float(np.dot(np.clip(age_s - EDGES_S, 0.0, _WIDTHS), self.rates))


_WIDTHS = np.append(np.diff(EDGES_S), np.inf)


def learn(runs: Runs, now: float, outages: Sequence[Outage] = ()) -> list[Recurrence | None]:
    """Of each model of these runs, known at `now`, whose keep-alive is none; None where nothing is on record of it.
    Idle times in which an outage lies may have been none, and say nothing.

    A rate is events over exposure, with a Gamma prior whose mean is the fleet's curve, scaled by the model's own pace,
    and whose weight is OWN events (empirical Bayes: Efron and Morris, 1973)."""
    since, until, whose, woke = idle_times(runs, now, outages)
    count, buckets = runs.count, len(EDGES_S)
    exposure, events = np.zeros((count, buckets)), np.zeros((count, buckets))
    length = until - since
    place = np.clip(np.searchsorted(EDGES_S, length, side="right") - 1, 0, None)
    for bucket, (low, width) in enumerate(zip(EDGES_S, _WIDTHS, strict=True)):
        exposure[:, bucket] = np.bincount(whose, np.clip(length - low, 0.0, width), minlength=count)
        events[:, bucket] = np.bincount(whose[woke & (place == bucket)], minlength=count)
    rates = _rates(events, exposure)
    ends = np.full(count, -np.inf)
    np.maximum.at(ends, runs.model, np.minimum(runs.end, now))
    return [
        Recurrence(tuple(map(float, rates[model])), float(ends[model])) if np.isfinite(ends[model]) else None
        for model in range(count)
    ]


def _rates(events: Floats, exposure: Floats) -> Floats:
    """By model and bucket."""
    usual = (events.sum() + 0.5) / (exposure.sum() + 3600.0)
    fleet = (events.sum(0) + 0.5) / (exposure.sum(0) + 0.5 / usual)
    pace = (events.sum(1) + 1.0) / ((exposure * fleet).sum(1) + 1.0)
    prior = pace[:, None] * fleet
    return np.asarray((events + OWN) / (exposure + OWN / prior))
