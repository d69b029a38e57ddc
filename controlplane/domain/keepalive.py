"""How long a model is worth keeping after its last request, learned from its own idle times. Seconds throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 20  # idle times longer than the shortest keep-alive, before they say more than the usual one does
MOST = 4.0  # times the usual one, at most
SHORTEST_S = 60.0
# What a start that is waited for is worth, in usual keep-alives. With one of them more starts would be waited for than
# with the usual keep-alive, for the slots that this saves; with two, fewer starts and fewer slots: bench/keep_alive.py.
START = 2.0
BETTER = 0.95  # of what the usual one would have cost, at most
ROOM = 1.02  # a little more than the idle times that it is to outlast


@dataclass(frozen=True, slots=True)
class Learned:
    """`why` is for people."""

    keep_alive_s: float
    why: str


def learn(idle_s: Sequence[float], *, usual_s: float, resolution_s: float = 0.0) -> Learned | None:
    """The keep-alive that these idle times, between one request's end and the next one's coming, would have been served
    best by; None where they are too few, or where it would have been hardly better than the usual one.
    `resolution_s`: by how much an idle time may really have been longer.

    Keeping a model is renting, starting it once more is buying. Who knows nothing of its idle times X does best to keep
    it for as long as a start is worth (Karlin et al., Competitive Randomized Algorithms for Nonuniform Problems, 1994).
    Who knows them finds the K of the least E[min(X, K)] + C P(X > K), C being what a start is worth: right behind one
    of the idle times that were seen, or the shortest there is. The 99th percentile of the idle times within the bounds
    (Shahrad et al., Serverless in the Wild, 2020) pays for its last percent whatever that costs."""
    idle = np.sort(np.asarray(idle_s, np.float64)) + resolution_s
    shortest, longest = min(SHORTEST_S + resolution_s, usual_s), MOST * usual_s
    idle = idle[idle > shortest]  # any keep-alive outlasts the others
    if len(idle) < LEAST:
        return None
    candidates = np.unique(np.concatenate([[shortest, usual_s], idle[idle * ROOM <= longest] * ROOM]))
    costs = _costs(idle, candidates, START * usual_s)
    usual_cost = costs[np.searchsorted(candidates, usual_s)]
    best = int(np.argmin(costs))
    if costs[best] > BETTER * usual_cost:
        return None
    chosen = float(np.ceil(candidates[best]))
    return Learned(chosen, _why(idle, chosen, usual_s))


def _costs(idle: np.ndarray, keep_alive_s: np.ndarray, start_s: float) -> np.ndarray:
    """Seconds of a slot and of starts for each keep-alive; `idle` in order."""
    held = np.concatenate([[0.0], np.cumsum(idle)])
    outlasted = np.searchsorted(idle, keep_alive_s, side="right")
    return held[outlasted] + (len(idle) - outlasted) * (keep_alive_s + start_s)


def _why(idle: np.ndarray, chosen_s: float, usual_s: float) -> str:
    outlasted, usually = (f"{np.mean(idle <= limit):.0%}" for limit in (chosen_s, usual_s))
    return f"{outlasted} of its {len(idle)} longer idle times end within it, {usually} within {usual_s:.0f} s"
