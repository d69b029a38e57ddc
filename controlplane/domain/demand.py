"""How many requests a second are to come to one deployment, as a quantile: from its own minutes alone. Pure.

Three ways to say the mean rate of the minutes to come: as it is now, as in the last hour, and as it is now or was a day
ago at this time, whichever is more. Bursts within those minutes are not its matter: who sizes replays requests with
their own. What each missed by in the past, as it is or in units of the root of what it said, gives the quantile (split
conformal prediction: of n residuals the ceil((n + 1) level)-th); the one with the least pinball loss at 95% is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SMOOTH = 5  # minutes that a rate is the mean of
AHEAD = 10  # minutes: so long a size holds that was found for the rate
HOUR, DAY = 60, 1440
LOOK_BACK = 8 * DAY
FEWEST = 10  # residuals, below which they tell nothing
POWERS = (0.0, 0.5)  # errors as large at any rate, or as those of counts
JUDGED = 0.95  # the level at which ways are compared, whichever is asked for: the surer, the more is told
DRIFT = 0.15  # of a rate: by so much it may leave the one that was sized for
GUESSED = 1.5  # times the rate of now, while nothing better is known


@dataclass(frozen=True, slots=True)
class Coming:
    """Requests a second: now, and the quantile of their mean in the minutes to come. `why` for people. `peak`:
    the highest mean of as many minutes in the last day."""

    now: float
    rate: float
    why: str
    peak: float = 0.0


def coming(arrivals: Sequence[int] | Floats, *, level: float = 0.95) -> Coming:
    """`arrivals`: by minute, the oldest first, up to the last whole one; NaN where it is not on record, which is not
    none. A rate that is not known now is taken from the last minutes that are."""
    counts = np.asarray(arrivals, np.float64)[-LOOK_BACK:]
    counts = np.where(counts < 0, np.nan, counts)
    rates = _smooth(counts, SMOOTH)
    known = rates[~np.isnan(rates)]
    if not len(known):
        return Coming(0.0, 0.0, "nothing is on record")
    now = float(known[-1])
    means = _means(counts)
    peak = float(np.fmax.reduce(means[-DAY:], initial=now))
    ways = {
        "as it is now": rates,
        "as in the last hour": _smooth(counts, HOUR),
        "as now or a day ago": _yesterday(rates, means),
    }
    told = [
        (*found, way)
        for way, base in ways.items()
        for power in POWERS
        if (found := _told(means, base, level, power)) is not None
    ]
    if not told:
        return Coming(now, GUESSED * now, f"{GUESSED:g} times the rate of now: too little is on record", peak)
    _, rate, way = min(told)
    return Coming(now, max(now, rate), f"{100 * level:g}% sure for {AHEAD} min, {way}", peak)


def has_left(sized_for: float, rate: float) -> bool:
    """What was sized for the one rate no longer tells of the other."""
    return abs(rate - sized_for) > DRIFT * max(sized_for, rate)


def _smooth(counts: Floats, minutes: int) -> Floats:
    """Requests a second in the last `minutes`, at each; of those that are known, NaN where none is."""
    known = ~np.isnan(counts)
    total, number = (_sums(one, minutes) for one in (np.where(known, counts, 0.0), known.astype(np.float64)))
    return np.where(number > 0, total / np.maximum(number, 1.0), np.nan) / 60.0


def _sums(values: Floats, minutes: int) -> Floats:
    """Of the last `minutes` at each; of fewer at the beginning."""
    whole = np.concatenate([np.zeros(1), np.cumsum(values)])
    return np.asarray(whole[1:] - whole[np.maximum(np.arange(len(values)) + 1 - minutes, 0)])


def _yesterday(rates: Floats, means: Floats) -> Floats:
    """At each minute: the rate, or the mean of a day ago in the AHEAD minutes from then. NaN on the first day."""
    if len(rates) <= DAY:
        return np.full(len(rates), np.nan)
    past = np.concatenate([np.full(DAY, np.nan), means, np.full(AHEAD, np.nan)])[: len(rates)]
    return np.where(np.isnan(past), np.nan, np.fmax(rates, past))


def _means(counts: Floats) -> Floats:
    """Requests a second in the AHEAD minutes after each; shorter by AHEAD. NaN where one of them is not known."""
    if len(counts) <= AHEAD:
        return np.empty(0)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(counts[1:], AHEAD).mean(axis=1) / 60.0)


def _told(means: Floats, base: Floats, level: float, power: float) -> tuple[float, float] | None:
    """(pinball loss in the past, what is said of the time to come); None where too little is known. `power`: of what is
    said, which errors are in units of."""
    unit = np.maximum(base, 1.0 / 60.0) ** power
    errors = (means - base[: len(means)]) / unit[: len(means)]
    known = ~np.isnan(errors)
    residuals = np.sort(errors[known])
    # Windows overlap: so many of them are AHEAD times fewer looks at the past.
    apart = len(residuals) / AHEAD
    if len(residuals) < FEWEST or math.isnan(base[-1]):
        return None
    left = (errors[known] - _quantile(residuals, JUDGED, apart)) * unit[: len(means)][known]
    loss = float(np.where(left > 0, JUDGED * left, (JUDGED - 1.0) * left).mean())
    return loss, max(0.0, float(base[-1] + _quantile(residuals, level, apart) * unit[-1]))


def _quantile(residuals: Floats, level: float, apart: float) -> float:
    """Of sorted residuals that count as `apart` many."""
    rank = min(math.ceil(level * (apart + 1)) / apart, 1.0)
    return float(residuals[min(len(residuals) - 1, math.ceil(rank * len(residuals)) - 1)])
