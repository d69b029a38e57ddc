"""Which sleeping models of the pool are worth waking before anybody asks: those due by their own clock, and those so
likely to be asked for that a slot's idle time costs less than the wait. No rows, no clock. Seconds throughout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.domain.keepalive import START
from controlplane.domain.recurrence import Recurrence
from controlplane.domain.rhythm import AGREE, Rhythm

AT_ONCE = 2  # starts ahead of requests that are under way
LEAST = 0.3  # no idle model that is asked for less likely than that is worth its start


@dataclass(frozen=True, slots=True)
class Sleeper:
    """`start_s`: how long before it is asked for it has to be woken. `missed`: how often in a row it was woken ahead
    and then not asked for. `slots`: that it takes."""

    name: str
    recurrence: Recurrence | None
    rhythm: Rhythm | None
    idle_s: float
    start_s: float
    missed: int = 0
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Due:
    """`chance`: that it is asked for in time. `by_clock`: surely enough to take slots that are held for others."""

    name: str
    chance: float
    by_clock: bool
    reason: str
    slots: int = 1


def due(sleeper: Sleeper, *, now: float, keep_alive_s: float) -> Due | None:
    """None: it is better left asleep. `keep_alive_s`: how long one that was woken stays where nobody comes; a start
    that is waited for is worth START of them, as for keep-alives. Each time in a row that it was woken in vain halves
    what the chance may lack to certainty."""
    return _by_clock(sleeper, now, keep_alive_s) or _likely(sleeper, keep_alive_s)


def choose(found: Iterable[Due], *, free: int, reserved: int, under_way: int) -> list[Due]:
    """Into free slots only, and of those that are held for whoever comes only for those due by their clock."""
    chosen: list[Due] = []
    for one in sorted(found, key=lambda one: (not one.by_clock, -one.chance, one.name)):
        left = free - sum(other.slots for other in chosen) - (0 if one.by_clock else reserved)
        if left >= one.slots and under_way + len(chosen) < AT_ONCE:
            chosen.append(one)
    return chosen


def chance(
    recurrence: Recurrence | None, rhythm: Rhythm | None, *, now: float, idle_s: float, within_s: float
) -> float | None:
    """P(it is asked for within that time) by its idle times and by its clock; None where nothing is known of either."""
    if recurrence is None and rhythm is None:
        return None
    idle = recurrence.within(within_s, idle_s) if recurrence else 0.0
    clock = rhythm.kept if rhythm and rhythm.due(now) - now <= within_s else 0.0
    return 1.0 - (1.0 - idle) * (1.0 - clock)


def _by_clock(sleeper: Sleeper, now: float, keep_alive_s: float) -> Due | None:
    rhythm = sleeper.rhythm
    if rhythm is None:
        return None
    ahead = rhythm.due(now) - now
    if ahead - min(rhythm.spread_s, keep_alive_s) > sleeper.start_s or rhythm.kept < _needed(0.5, sleeper.missed):
        return None
    sure = rhythm.kept >= AGREE and not sleeper.missed
    why = f"due by its own clock, each {rhythm.period_s / 60.0:.0f} min, which it kept {rhythm.kept:.0%} of the times"
    return Due(sleeper.name, rhythm.kept, sure, why, sleeper.slots)


def _likely(sleeper: Sleeper, keep_alive_s: float) -> Due | None:
    if sleeper.recurrence is None:
        return None
    within = sleeper.start_s + keep_alive_s
    likely = sleeper.recurrence.within(within, sleeper.idle_s)
    if likely < LEAST:
        return None
    costs = sleeper.recurrence.wait_s(within, sleeper.idle_s) / (START * keep_alive_s)
    if likely < _needed(max(LEAST, costs), sleeper.missed):
        return None
    why = f"asked for within {within:.0f} s with a chance of {likely:.0%}"
    return Due(sleeper.name, likely, False, why, sleeper.slots)


def _needed(chance: float, missed: int) -> float:
    return 1.0 - (1.0 - min(1.0, chance)) / 2.0**missed
