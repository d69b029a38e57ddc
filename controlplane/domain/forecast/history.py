"""What a forecaster may look at: the past of a moment, and nothing behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from controlplane.domain.forecast.activity import (
    Activations,
    Count,
    Floats,
    Ints,
    Requests,
    Runs,
    activations,
    count,
    runs,
)
from controlplane.domain.forecast.hazards import DAY_S, Outage

RATE_S = 7 * DAY_S  # over which activations are counted
UNKNOWN = -1  # in a series of counts: nothing was recorded then, which is not the same as no demand


@dataclass(slots=True)
class History:
    """A log seen through one keep-alive and one horizon, with a moment to decide at each `step_s` from `start`."""

    requests: Requests
    keep_alive_s: float
    horizon_s: float
    start: float
    end: float
    step_s: float = 600.0
    outages: tuple[Outage, ...] = ()
    runs: Runs = field(init=False)
    count: Count = field(init=False)
    activations: Activations = field(init=False)
    moments: Floats = field(init=False)
    active: Ints = field(init=False)  # A at each moment
    peaks: Ints = field(init=False)  # Y of the window that begins at each moment; those behind `end` are not whole

    _steps: Ints = field(init=False)  # the peak of each step

    def __post_init__(self) -> None:
        self.runs = runs(self.requests, self.keep_alive_s)
        self.count = count(self.runs)
        self.activations = activations(self.runs, self.count)
        self.moments = np.arange(self.start, self.end, self.step_s)
        self.active = self.count.at(self.moments)
        self.peaks = self.count.peak(self.moments, self.horizon_s)
        self._steps = self.count.peak(self.moments, self.step_s)
        for gap in self.outages:
            self.active[(self.moments >= gap.start) & (self.moments < gap.end)] = UNKNOWN
            self.peaks[(self.moments + self.horizon_s > gap.start) & (self.moments < gap.end)] = UNKNOWN

    @property
    def lag(self) -> int:
        """Moments that pass until a window that begins now is over."""
        return int(np.ceil(self.horizon_s / self.step_s))

    @property
    def per_day(self) -> int:
        return max(1, round(DAY_S / self.step_s))

    def so_far(self, place: int) -> Ints:
        """The peak from each of the last moments, whose windows are not over, to that one."""
        steps = self._steps[max(0, place - self.lag + 1) : place]
        return np.asarray(np.maximum.accumulate(steps[::-1])[::-1])

    def seen_at(self, place: int) -> Seen:
        return Seen(self, place)


@dataclass(frozen=True, slots=True)
class Seen:
    """The history as it is known at its moment `place`."""

    history: History
    place: int

    @property
    def now(self) -> float:
        return float(self.history.moments[self.place])

    @property
    def horizon_s(self) -> float:
        return self.history.horizon_s

    @property
    def keep_alive_s(self) -> float:
        return self.history.keep_alive_s

    @property
    def lag(self) -> int:
        return self.history.lag

    @property
    def per_day(self) -> int:
        return self.history.per_day

    @property
    def models(self) -> int:
        return len(self.history.requests.models)

    def day_part(self, place: int) -> float:
        """When in the day that moment is, 0..1."""
        return float(self.history.moments[place] % DAY_S / DAY_S)

    @property
    def outages(self) -> tuple[Outage, ...]:
        """Those that began by now."""
        return tuple(gap for gap in self.history.outages if gap.start <= self.now)

    @property
    def sighted(self) -> float:
        """The last moment of which anything is known: now, but in an outage its beginning."""
        return min((gap.start for gap in self.outages if gap.end > self.now), default=self.now)

    def recorded_s(self, since_s: float) -> float:
        """How much of the last `since_s` is on record."""
        return since_s - sum(gap.within(self.now - since_s, self.now) for gap in self.outages)

    @property
    def active(self) -> Ints:
        """A at each moment up to now."""
        return self.history.active[: self.place + 1]

    @property
    def peaks(self) -> Ints:
        """Y of the windows that are over."""
        return self.history.peaks[: max(0, self.place - self.lag + 1)]

    @property
    def so_far(self) -> Ints:
        """The peak, up to now, of each window that is not over; the last entry is of the one that began a step ago. In
        an outage it is of what was on record."""
        return self.history.so_far(self.place)

    def cold(self, place: int, reserve: Floats) -> Floats:
        """Of a window that is over, by its place: the activations that made more models active than `reserve`, as a
        multiple of all activations of a window on the mean of the last week. Shape of `reserve`, (levels,)."""
        begin = float(self.history.moments[place])
        active = self.history.activations.between(begin, begin + self.horizon_s)
        return np.asarray((active[:, None] > reserve).sum(axis=0) / self._activations_a_window())

    def _activations_a_window(self) -> float:
        """At least one: of fewer a mean tells little."""
        at, since = self.history.activations.at, self.now - RATE_S
        if not len(at):
            return 1.0
        known_s = self.recorded_s(min(RATE_S, self.now - float(at[0])))
        begun = np.searchsorted(at, self.now) - np.searchsorted(at, since)
        return max(1.0, float(begun) * self.horizon_s / max(known_s, self.horizon_s))

    def runs(self, since_s: float) -> Runs:
        """What is known of the runs of the last `since_s`, as of the last sight."""
        return self.history.runs.known_at(self.sighted).since(self.now - since_s)

    def requests(self, since_s: float) -> Requests:
        return self.history.requests.within(self.now - since_s, self.now)


class Method(Protocol):
    """A way to forecast Y. It may keep what it learned, for it is asked of one history in the order of time."""

    @property
    def name(self) -> str: ...

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        """Of the peak of [now, now + horizon); shape (levels,), not negative and rising."""
        ...


def known(series: Ints) -> Ints:
    """Without what is not known."""
    return np.asarray(series[series != UNKNOWN])
