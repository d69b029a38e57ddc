"""Many models that fall silent at once, more than their habits explain: as when a router or a network is down. No data
is not no demand: for a while they are taken to come back as they went, together.

How likely each was to leave follows from how seldom it did. That all of them do within a step is a common fall where it
is next to impossible even if everyone were some times as likely to leave as usual, as people are in the evening."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import pdtrc

from controlplane.domain.forecast.activity import Floats, Ints, Runs
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import UNKNOWN, Seen
from controlplane.domain.forecast.tracker import Flags

LEAST = 5  # fewer models are no common fall
SPAN_S = 7 * DAY_S
PRIOR_S = 3600.0  # active seconds, with one end in them, that are taken to be known of every model
SELDOM = 0.1  # only who had a smaller chance to leave within the step tells of a common cause
TIMES = 3.0  # as likely as usual everyone may be to leave, and it still is no habit
CHANCE = 1e-6  # at which it is none: less than one false alarm in ten years of steps of ten minutes
LONGEST_S = 6 * 3600.0  # for which they are waited for: by then they left for good


@dataclass(slots=True)
class Falls:
    """Asked in the order of time."""

    _missing: dict[int, float] = field(default_factory=dict)  # by model: when it fell silent

    def joined(self, places: Ints) -> None:
        """Models have come: `places` has, of each that was there, where it is now."""
        self._missing = {int(places[who]): at for who, at in self._missing.items()}

    def floor(self, seen: Seen, levels: Floats) -> Floats:
        """What is active and who is missing since a common fall, shape (levels,); zeros where there was none. What has
        lasted for a time goes on for as long again with a chance of one half, so that who is gone for `a` is back in
        the horizon H with a chance of H / (a + H): a level holds for them while that is more than it may miss."""
        self._look(seen)
        if not self._missing or seen.active[-1] == UNKNOWN:
            return np.zeros(len(levels))
        gone_s = seen.now - np.array(list(self._missing.values()))
        lasts_s = np.minimum(seen.horizon_s * levels / np.maximum(1.0 - levels, 1e-9), LONGEST_S)
        missing = (gone_s[:, None] <= lasts_s).sum(axis=0)
        return np.where(missing, float(seen.active[-1]) + missing, 0.0)

    def _look(self, seen: Seen) -> None:
        active, step_s = seen.active, seen.history.step_s
        if self._missing:
            here = _active(seen.runs(LONGEST_S), seen.now)
            self._missing = {
                who: at for who, at in self._missing.items() if not here[who] and seen.now - at <= LONGEST_S
            }
        if len(active) < 2 or UNKNOWN in active[-2:] or active[-2] - active[-1] < LEAST:
            return
        before_s = seen.now - step_s
        if any(gap.within(before_s - seen.keep_alive_s, seen.now) for gap in seen.outages):
            return  # of nobody is it known whether it left
        for who in common(seen.runs(SPAN_S), before_s, seen.now):
            self._missing[int(who)] = before_s


def common(runs: Runs, before: float, now: float) -> Ints:
    """Who fell silent between these two moments, if that was a common fall; `runs`: as known at the second."""
    was, left = _active(runs, before), _active(runs, before) & ~_active(runs, now)
    if left.sum() < LEAST:
        return np.empty(0, np.int64)
    leaves = _chance(runs, before, now - before)
    seldom = leaves < SELDOM
    number, usual = int((left & seldom).sum()), float(leaves[was & seldom].sum())
    if number < LEAST or pdtrc(number - 1, TIMES * usual) > CHANCE:  # of a Poisson number to be so great
        return np.empty(0, np.int64)
    return np.flatnonzero(left)


def _active(runs: Runs, moment: float) -> Flags:
    there = np.zeros(runs.count, bool)
    there[runs.model[(runs.start <= moment) & (runs.end > moment)]] = True
    return there


def _chance(runs: Runs, now: float, within_s: float) -> Floats:
    """That each, if it is active, leaves within that time, by how often it left before; shape (models,)."""
    begun = runs.start < now
    model, start = runs.model[begun], np.maximum(runs.start[begun], now - SPAN_S)
    end = np.minimum(runs.end[begun], now)
    active_s = np.bincount(model, end - start, minlength=runs.count)
    ends = np.bincount(model[runs.end[begun] <= now], minlength=runs.count)
    return np.asarray(-np.expm1(-within_s * (ends + 1.0) / (active_s + PRIOR_S)))
