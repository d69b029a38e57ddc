"""How long prompts or answers of one deployment will be in the next hour, as quantiles of their mean: from its own
hours alone. Pure.

Three ways to say the mean of the hour to come: as in the last hour that is known, as in the last day, and as a day ago
at this time. What each missed by in the past, as a ratio, gives the quantiles (split conformal prediction: of n
residuals the ceil((n + 1) level)-th), and a tracker (arXiv 2307.16895) steps up after a miss and down otherwise, so
that they mean what they say where lengths drift. All hours on record are told in order, each by those before it alone:
how many of them held is the coverage, and the way with the least pinball loss is the one that is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.9, 0.95, 0.99)
DAY = 24  # hours
LOOK_BACK = 8 * DAY
LEAST_REQUESTS = 5  # of an hour whose mean is taken for one
FEWEST = 10  # residuals, below which they tell nothing
BEYOND = 2.0  # times what is on record
RATE = 0.05  # of the range of residuals, that the tracker steps by
SILENT_S = 600.0  # requests come for longer and no answer ends: nobody serves them
WAYS = ("as in the last hour", "as in the last day", "as a day ago")


@dataclass(frozen=True, slots=True)
class Lengths:
    """`now`: mean tokens of a request in the last hour that is known. `means`: quantiles of the next hour's mean, at
    `levels`, within what hours on record had. `covered`: by level, the share of `windows` past hours whose mean was no
    more than was told of them; None where there are none."""

    now: float
    levels: tuple[float, ...]
    means: tuple[float, ...]
    covered: tuple[float | None, ...]
    windows: int
    why: str

    def at(self, level: float) -> float:
        """Of a level between those that are told by interpolation; of one beyond them the nearest."""
        return float(np.interp(level, self.levels, self.means))


def answered(at: Floats, requests: Floats, tokens: Floats) -> NDArray[np.bool_]:
    """Which minutes' requests tell of lengths. `at`: when each minute began, seconds, in any order; `requests` that
    began in it, `tokens` of the answers that ended in it. Those that were refused or failed are among the requests and
    have no tokens: left out are those that came in a stretch of more than SILENT_S in which no answer ended, and those
    after which none has ended yet. A stretch begins with a request SILENT_S or more after the last one."""
    order = np.argsort(at, kind="stable")
    times, asks, ends = at[order], requests[order] > 0, tokens[order] > 0
    last = np.maximum.accumulate(np.where(asks | ends, times, -np.inf))
    apart = np.concatenate([[True], (times[1:] - last[:-1] >= SILENT_S) | ends[:-1]]) if len(at) else ends
    stretch = np.cumsum(apart) - 1
    begun, ended = np.full(stretch.max(initial=-1) + 1, np.inf), np.full(stretch.max(initial=-1) + 1, np.inf)
    np.minimum.at(begun, stretch[asks], times[asks])
    np.minimum.at(ended, stretch[ends], times[ends])
    found = np.empty(len(at), bool)
    found[order] = ends | (ended - SILENT_S <= begun)[stretch]
    return found


def coming(
    tokens: Sequence[float] | Floats,
    requests: Sequence[float] | Floats,
    *,
    levels: tuple[float, ...] = LEVELS,
    day: int = DAY,
) -> Lengths | None:
    """`tokens`, `requests`: by hour, the oldest first, up to the last whole one; NaN or less than 0 where it is not on
    record. `day`: how many are one; fewer where each is longer. None: too few have LEAST_REQUESTS to know of
    the next."""
    sums, counts = (np.asarray(one, np.float64)[-LOOK_BACK:] for one in (tokens, requests))
    known = np.isfinite(sums) & np.isfinite(counts) & (sums > 0) & (counts >= LEAST_REQUESTS)
    sums, counts = np.where(known, sums, 0.0), np.where(known, counts, 0.0)
    means = sums / np.maximum(counts, 1.0)
    known &= means > 0  # of the smallest of sums it is not
    means = np.where(known, means, np.nan)
    if known.sum() <= FEWEST:
        return None
    told = [_told(means, base, levels) for base in _bases(means, sums, counts, day)]
    best = min((one for one in told if one is not None), key=lambda one: one[0], default=None)
    if best is None:
        return None
    _, quantiles, covered, windows = best
    way = WAYS[next(place for place, one in enumerate(told) if one is best)]
    now = float(means[known][-1])
    return Lengths(now, levels, quantiles, covered, windows, f"{way}, by {windows} hours" if windows else way)


def _bases(means: Floats, sums: Floats, counts: Floats, hours: int) -> tuple[Floats, ...]:
    """What each way says of every hour and, last, of the one to come; NaN where it does not know."""
    number = len(means)
    last, day, ago = (np.full(number + 1, np.nan) for _ in WAYS)
    for at in range(1, number + 1):
        last[at] = means[at - 1] if not math.isnan(means[at - 1]) else last[at - 1]
        since = max(0, at - hours)
        asked = counts[since:at].sum()
        day[at] = sums[since:at].sum() / asked if asked else last[at]
        ago[at] = means[at - hours] if at >= hours and not math.isnan(means[at - hours]) else day[at]
    return last, day, ago


def _told(
    means: Floats, base: Floats, levels: tuple[float, ...]
) -> tuple[float, tuple[float, ...], tuple[float | None, ...], int] | None:
    """Pinball loss in logarithms, quantiles of the hour to come, coverage and windows; None where too few residuals are
    known or the way says nothing of it."""
    wanted, logs, bases = np.array(levels), np.log(means), np.log(base)
    residuals: list[float] = []
    shift, lost, held, windows = np.zeros(len(levels)), 0.0, np.zeros(len(levels)), 0
    for at, mean in enumerate(logs):
        if math.isnan(mean) or math.isnan(bases[at]):
            continue
        if len(residuals) >= FEWEST:
            said = bases[at] + _said(residuals, shift, wanted)
            over = mean - _within(said, logs[:at])
            lost += float(np.where(over > 0, wanted * over, (wanted - 1.0) * over).sum())
            held += over <= 1e-12
            windows += 1
            # What the least on record held alone was missed to the tracker, or it would step down for ever.
            missed = (over > 1e-12) | (mean - said > 1e-12)
            shift = shift + RATE * (max(residuals) - min(residuals)) * (missed - (1.0 - wanted))
            shift = _said(residuals, shift, wanted) - _quantiles(residuals, wanted)
        residuals.append(mean - bases[at])
    if len(residuals) < FEWEST or math.isnan(bases[-1]):
        return None
    quantiles = np.exp(_within(bases[-1] + _said(residuals, shift, wanted), logs))
    covered = tuple(float(one) / windows if windows else None for one in held)
    return lost / max(1, windows), tuple(quantiles.tolist()), covered, windows


def _said(residuals: Sequence[float], shift: Floats, levels: Floats) -> Floats:
    """Rising with the level, and beyond the residuals by one step of the tracker at most: that is as far as it gets
    where it alone tells the quantile, and added to one it should get no further."""
    least, most = min(residuals), max(residuals)
    step = RATE * (most - least)
    return np.clip(np.maximum.accumulate(_quantiles(residuals, levels) + shift), least - step, most + step)


def _within(told: Floats, record: Floats) -> Floats:
    """In logarithms: at most BEYOND times the most on record, and at least as much of the least. A ratio from short
    hours, laid on a long one, would make lengths that no request ever had; but what drifts comes past its record."""
    return np.clip(told, np.nanmin(record) - math.log(BEYOND), np.nanmax(record) + math.log(BEYOND))


def _quantiles(residuals: Sequence[float], levels: Floats) -> Floats:
    ordered = np.sort(np.array(residuals))
    places = np.ceil(levels * (len(ordered) + 1)).astype(np.int64) - 1
    return np.asarray(ordered[np.clip(places, 0, len(ordered) - 1)])
