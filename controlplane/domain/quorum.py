"""Whether so many nodes fell silent at once that nothing automatic may act on it. Pure; times are unix seconds of the
server's clock.

One node that falls silent is a dead host, and its engines may be placed elsewhere. Many at once are a network, a power
rail or the control plane itself: moving all of their engines would make it worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

MASS_LOSS, NO_REPORTS, SETTLING = "mass-loss", "no-reports", "settling"


@dataclass(frozen=True, slots=True)
class Rule:
    """Many is `share` of the nodes that count, and `least` at the least. A node counts for `within_s` after it was
    heard. `settle_s`: how long things must be well again while some of the nodes are still missing. `late_s`: where
    nobody looked for so long, nobody may have taken reports either."""

    silent_after_s: float = 10.0
    share: float = 1 / 3
    least: int = 2
    within_s: float = 3600.0
    settle_s: float = 60.0
    late_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What one look leaves to the next. The brake holds on to the nodes that counted when it came on: they don't stop
    counting because they have been away for long."""

    on: bool = False
    counted: frozenset[int] = frozenset()  # while it is on
    clear_since: float | None = None  # while it is on: since when there are not many silent ones any more
    looked: float | None = None  # when that look was
    newest: float | None = None  # the newest report of any node
    before: float | None = None  # the last report before a gap in the reports of all nodes
    resumed: float | None = None  # the first one after it


@dataclass(frozen=True, slots=True)
class Verdict:
    on: bool
    cause: str  # MASS_LOSS, NO_REPORTS, SETTLING, or "" where it is off
    silent: tuple[int, ...]
    counted: int
    memory: Memory


def judge(seen: Mapping[int, float], newest: float | None, memory: Memory, now: float, rule: Rule) -> Verdict:
    """`seen`: when each node that matters was last heard. `newest`: the newest report of any node, of those too that
    don't matter here."""
    memory = _hear(memory, newest, now, rule)
    counted = {node for node, at in seen.items() if at >= _cutoff(memory, now, rule) or node in memory.counted}
    silent = {node for node in counted if now - seen[node] > rule.silent_after_s}
    many = len(silent) >= _many(len(counted), rule)
    clear_since = None if many else now if memory.clear_since is None else memory.clear_since
    memory = replace(memory, clear_since=clear_since)
    on = many or (bool(silent) and _is_settling(memory, now, rule))
    cause = "" if not on else SETTLING if not many else NO_REPORTS if silent == counted else MASS_LOSS
    memory = replace(memory, on=on, counted=frozenset(counted) if on else frozenset())
    return Verdict(on, cause, tuple(sorted(silent)), len(counted), memory)


def _many(counted: int, rule: Rule) -> int:
    return max(rule.least, math.ceil(rule.share * counted - 1e-9))  # a third of nine is three, whatever the float


def _hear(memory: Memory, newest: float | None, now: float, rule: Rule) -> Memory:
    """The first report after a gap says nothing of the other nodes: it is remembered when the gap began and ended."""
    if memory.resumed is not None and now - memory.resumed > rule.within_s:
        memory = replace(memory, before=None, resumed=None)
    heard = replace(memory, looked=now, newest=newest)
    if newest is None or memory.newest is None or newest <= memory.newest or not _was_down(memory, now, rule):
        return heard
    before = memory.newest if memory.before is None else memory.before
    return replace(heard, before=before, resumed=newest)


def _was_down(memory: Memory, now: float, rule: Rule) -> bool:
    """No node was heard at the last look, or nobody has looked for long."""
    if memory.looked is None or memory.newest is None:
        return False
    return memory.looked - memory.newest > rule.silent_after_s or now - memory.looked > rule.late_s


def _cutoff(memory: Memory, now: float, rule: Rule) -> float:
    """A node counts that was heard since. Time in which no node could be heard does not count against any."""
    if memory.before is not None:
        return memory.before - rule.within_s
    reports_are_down = memory.newest is not None and now - memory.newest > rule.silent_after_s
    return (memory.newest if reports_are_down and memory.newest is not None else now) - rule.within_s


def _is_settling(memory: Memory, now: float, rule: Rule) -> bool:
    """Few are silent, but that has not been so for long: since the brake had a reason, or since reports came again."""
    begun = [at for at in (memory.clear_since if memory.on else None, memory.resumed) if at is not None]
    return bool(begun) and now - max(begun) < rule.settle_s
