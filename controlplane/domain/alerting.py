"""When an alert begins, fires and ends. Values and the clock in, the next state out; nothing is stored here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

FLAP_WITHIN_S = 3600.0  # firings of one alert so close together are one trouble that comes and goes
FLAP_STEPS = 5  # each doubles how long it must be well: 32 times at the most


class State(StrEnum):
    """none -> pending -> firing -> resolved; pending -> none where it was well again before its time."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


SEVERITIES = tuple(Severity)  # from the least


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rule holds against a value. `above`: more is worse; `clear`: where what fires is well again, on the good
    side of the threshold; `for_s`: bad for so long before it fires; `clear_s`: well for so long before it ends."""

    threshold: float
    clear: float
    above: bool = True
    for_s: float = 0.0
    clear_s: float = 30.0

    def is_bad(self, value: float, *, firing: bool = False) -> bool:
        limit = self.clear if firing else self.threshold
        if limit == self.threshold:
            return value >= limit if self.above else value <= limit
        return value > limit if self.above else value < limit

    def is_near(self, value: float) -> bool:
        """Whether what fires would go on firing: anything else is well, whatever is remembered of it."""
        return self.is_bad(value) or self.is_bad(value, firing=True)


@dataclass(frozen=True, slots=True)
class Track:
    """One alert as it stands; moments in unix seconds. `flaps`: how often it fired before within FLAP_WITHIN_S."""

    state: State
    since: float  # of its state
    good_since: float | None = None  # firing, and well from then on
    flaps: int = 0


def step(limits: Limits, track: Track | None, value: float | None, now: float, *, flaps: int = 0) -> Track | None:
    """The alert after one look. An unknown value neither fires nor ends it. None: there is no alert (any more)."""
    if value is None:
        return track
    firing = track is not None and track.state is State.FIRING
    if limits.is_bad(value, firing=firing):
        return _bad(limits, track, now, flaps)
    return _good(limits, track, now)


def hold_s(limits: Limits, flaps: int) -> float:
    """How long it must be well before it ends: longer each time that it came back."""
    return float(limits.clear_s * 2 ** min(flaps, FLAP_STEPS))


def burn(bad: int, total: int, budget: float, *, least: int) -> float | None:
    """How many times faster than allowed the error budget is spent: 1 spends all of it just in time. None: too few
    requests to tell. Without a request nothing is spent."""
    if total == 0:
        return 0.0
    return None if total < least else round(bad / total / budget, 3)


def _bad(limits: Limits, track: Track | None, now: float, flaps: int) -> Track:
    if track is None:
        track = Track(State.PENDING, now, flaps=flaps)
    if track.state is State.FIRING:
        return track if track.good_since is None else replace(track, good_since=None)
    if now - track.since >= limits.for_s:
        return Track(State.FIRING, now, flaps=track.flaps)
    return track


def _good(limits: Limits, track: Track | None, now: float) -> Track | None:
    if track is None or track.state is not State.FIRING:
        return None
    since = now if track.good_since is None else track.good_since
    if now - since >= hold_s(limits, track.flaps):
        return replace(track, state=State.RESOLVED, since=now, good_since=since)
    return replace(track, good_since=since)
