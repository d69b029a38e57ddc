"""How often agents may report: every second, less often while the server cannot keep up. Pure.

Reports are whole snapshots, so fewer of them lose nothing but freshness; a server that falls behind loses more."""

from __future__ import annotations

from dataclasses import dataclass, replace

STEPS_S = (1.0, 2.0, 5.0, 10.0)  # times the configured period; the longest is below what makes a node silent
LATE_S = 0.25  # the event loop answers later than this: it is overloaded
CALM_S = 0.15
CROWD = 64  # reports that wait for a thread
FEW = 16
UP_AFTER_S = 3.0
DOWN_AFTER_S = 10.0  # slowly back, or it would swing


@dataclass(frozen=True, slots=True)
class Pace:
    """`step` of STEPS_S. `strained_since`, `calm_since`: unix seconds, None where it is not."""

    step: int = 0
    strained_since: float | None = None
    calm_since: float | None = None

    def period_s(self, configured_s: float, silent_after_s: float) -> float:
        """Never so long that a node would count as silent between two reports."""
        return min(configured_s * STEPS_S[self.step], max(configured_s, silent_after_s / 3))


def next_pace(pace: Pace, *, late_s: float, waiting: int, now: float) -> Pace:
    """After another look: how late the loop was at the worst since the last one, and how many reports wait."""
    if late_s > LATE_S or waiting > CROWD:
        since = pace.strained_since if pace.strained_since is not None else now
        if now - since >= UP_AFTER_S and pace.step + 1 < len(STEPS_S):
            return Pace(pace.step + 1, now)
        return Pace(pace.step, since)
    if late_s > CALM_S or waiting > FEW:
        return replace(pace, strained_since=None, calm_since=None)
    since = pace.calm_since if pace.calm_since is not None else now
    if now - since >= DOWN_AFTER_S and pace.step:
        return Pace(pace.step - 1, calm_since=now)
    return Pace(pace.step, calm_since=since)
