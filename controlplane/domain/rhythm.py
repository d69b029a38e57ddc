"""Models that are asked for by the clock: a job on the hour, a report each morning. Seconds throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 4  # gaps that agree, before it is more than chance
AGREE = 0.75  # of the gaps
WITHIN = 0.9  # of those that it began by the clock, within the spread
SKIPPED = 3  # a gap may be up to so many periods long
SHORTEST_S = 300.0
LOOK_AT = 32  # begins, most recent first


@dataclass(frozen=True, slots=True)
class Rhythm:
    """It begins each `period_s`, give or take `spread_s`; `last` is when it should have begun last, unix seconds.
    `kept`: of the times that it should have, the share that it did."""

    period_s: float
    last: float
    spread_s: float
    kept: float = AGREE

    def due(self, now: float) -> float:
        """When it should begin next; a moment less than the spread ago counts as next."""
        steps = np.ceil((now - self.spread_s - self.last) / self.period_s)
        return self.last + max(1.0, float(steps)) * self.period_s


def rhythm_of(begins: Sequence[float], *, resolution_s: float = 60.0) -> Rhythm | None:
    """Of a model that became active at these moments, in order; None where they follow no clock. `resolution_s`: how
    exactly the moments are known. Begins that were left out now and then, or came in between, are borne with."""
    at = np.asarray(begins, np.float64)[-LOOK_AT:]
    gaps = np.diff(at)
    gaps = gaps[gaps > 0]
    if len(gaps) < LEAST:
        return None
    period = _period(gaps, resolution_s)
    if period is None:
        return None
    spread = max(resolution_s, 0.02 * period)
    steps = np.round((at - at[-1]) / period)
    off = at - at[-1] - steps * period
    shift = float(np.median(off[np.abs(off) <= spread]))
    hits = np.abs(off - shift) <= spread
    usual = max(resolution_s, float(np.quantile(np.abs(off - shift)[hits], WITHIN)))
    return Rhythm(period, float(at[-1]) + shift, usual, _kept(steps[hits]))


def _kept(steps: np.ndarray) -> float:
    """By the rule of succession: a clock that was kept five times may be missed the sixth."""
    there = np.unique(steps)
    return float((len(there) + 1) / (there[-1] - there[0] + 3))


def _period(gaps: np.ndarray, resolution_s: float) -> float | None:
    """The gap that most others are a small multiple of; the mean of what they say of it."""
    best: tuple[int, float] | None = None
    for candidate in np.unique(gaps[gaps >= SHORTEST_S]):
        spread = max(resolution_s, 0.02 * candidate)
        multiples = np.round(gaps / candidate)
        fits = (multiples >= 1) & (multiples <= SKIPPED) & (np.abs(gaps - multiples * candidate) <= spread)
        count = int(fits.sum())
        if best is None or count > best[0]:
            best = (count, float(np.mean(gaps[fits] / multiples[fits])))
    if best is None or best[0] < max(LEAST, AGREE * len(gaps)):
        return None
    return best[1]
