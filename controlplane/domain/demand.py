"""How many requests a second are to come to one deployment, as a quantile: from its own minutes alone. Pure.

Two ways to say the greatest rate of the time to come: as it is now, and as it is now or was a day ago at this time,
whichever is more. What either missed by in the past, in units of the root of what it said, gives the quantile
(split conformal prediction: of n residuals the ceil((n + 1) level)-th); the one with the smaller pinball loss is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SMOOTH = 5  # minutes that a rate is the mean of
AHEAD = 15  # minutes
DAY = 1440
LOOK_BACK = 8 * DAY
FEWEST = 24  # residuals, below which they tell nothing
GUESSED = 1.5  # times the rate of now, while nothing better is known


@dataclass(frozen=True, slots=True)
class Coming:
    """Requests a second: now, and the quantile of the greatest in the minutes to come. `why` for people."""

    now: float
    rate: float
    why: str


def coming(arrivals: Sequence[int] | Floats, *, level: float = 0.95) -> Coming:
    """`arrivals`: by minute, the oldest first, up to the last whole one; NaN where it is not on record, which is not
    none. A rate that is not known now is taken from the last minutes that are."""
    counts = np.asarray(arrivals, np.float64)[-LOOK_BACK:]
    rates = _smooth(np.where(counts < 0, np.nan, counts)) / 60.0 if len(counts) else counts
    known = rates[~np.isnan(rates)]
    if not len(known):
        return Coming(0.0, 0.0, "nothing is on record")
    now = float(known[-1])
    ways = {"as it is now": rates, "as now or a day ago": _yesterday(rates)}
    told = [(*found, way) for way, base in ways.items() if (found := _told(rates, base, level)) is not None]
    if not told:
        return Coming(now, GUESSED * now, f"{GUESSED:g} times the rate of now: too little is on record")
    _, rate, way = min(told)
    return Coming(now, max(now, rate), f"{100 * level:g}% sure for {AHEAD} min, {way}")


def _smooth(counts: Floats) -> Floats:
    """The mean of the last SMOOTH minutes, at each; of those that are known, NaN where none is."""
    held = np.concatenate([np.full(SMOOTH - 1, np.nan), counts])
    windows = np.lib.stride_tricks.sliding_window_view(held, SMOOTH)
    known = ~np.isnan(windows)
    number = known.sum(axis=1)
    total = np.where(known, windows, 0.0).sum(axis=1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _yesterday(rates: Floats) -> Floats:
    """At each minute: the rate, or the greatest a day ago in the AHEAD minutes from then. NaN on the first day."""
    if len(rates) <= DAY:
        return np.full(len(rates), np.nan)
    peaks = np.concatenate([_peaks(rates), np.full(AHEAD, np.nan)])
    past = np.concatenate([np.full(DAY, np.nan), peaks[: len(rates) - DAY]])
    return np.where(np.isnan(past), np.nan, np.fmax(rates, past))


def _peaks(rates: Floats) -> Floats:
    """The greatest in the AHEAD minutes after each; shorter by AHEAD. NaN where none of them is known."""
    windows = np.lib.stride_tricks.sliding_window_view(rates[1:], AHEAD) if len(rates) > AHEAD else np.empty((0, AHEAD))
    filled = np.where(np.isnan(windows), -np.inf, windows).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(filled), filled, np.nan)


def _told(rates: Floats, base: Floats, level: float) -> tuple[float, float] | None:
    """(pinball loss in the past, what is said of the time to come); None where too little is known."""
    peaks = _peaks(rates)
    said, unit = base[: len(peaks)], np.sqrt(np.maximum(base, 1.0 / 60.0))
    residuals = (peaks - said) / unit[: len(peaks)]
    residuals = np.sort(residuals[~np.isnan(residuals)])
    # Windows overlap: so many of them are AHEAD times fewer looks at the past.
    apart = len(residuals) / AHEAD
    if apart < FEWEST / AHEAD or len(residuals) < FEWEST or math.isnan(base[-1]):
        return None
    rank = min(math.ceil(level * (apart + 1)) / apart, 1.0)
    at = float(residuals[min(len(residuals) - 1, math.ceil(rank * len(residuals)) - 1)])
    left = residuals - at
    loss = float(np.where(left > 0, level * left, (level - 1.0) * left).mean())
    return loss, max(0.0, float(base[-1] + at * unit[-1]))


__all__ = ["AHEAD", "Coming", "coming"]
