"""What came of a played pool: from what clients saw and what the product keeps of its activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

AGAIN_S = 60.0  # a model that is woken again so soon after it was made to leave was better left
Row = dict[str, Any]


@dataclass(slots=True)
class Played:
    """What clients saw, and the product's own rows of it, oldest first."""

    requests: int = 0
    failed: int = 0
    waits_s: list[float] = field(default_factory=list)  # of those whose model had to be woken
    why: Counter[str] = field(default_factory=Counter)
    twice: int = 0  # looks at which a slot had two engines
    start_s: float = 0.0  # a bare start
    predicted: bool = False  # by habits that were learned before the first request
    rows: list[Row] = field(default_factory=list)


def figures(played: Played) -> dict[str, float]:
    waits, start_s = sorted(played.waits_s), played.start_s
    ready = [row for row in played.rows if row["state"] == "ready"]
    middle = median(waits) if waits else 0.0
    return {
        "requests": played.requests,
        "failed": played.failed,
        "cold_share": round(len(waits) / max(1, played.requests), 4),
        "wait_p50_s": round(middle, 2),
        "wait_p95_s": round(_p95(waits), 2),
        "wait_mean_s": round(sum(waits) / max(1, played.requests), 3),
        "wait_over_start_p50": round(middle / start_s, 2),
        "thrash": thrash(played.rows),
        "start_s": round(start_s, 2),
        "woken": len(ready),
        "ahead": sum(row["cause"] == "ahead" for row in ready),
        "left": sum(bool(row["evicted"]) for row in played.rows),
        "two_on_a_slot": played.twice,
    }


SAID = {
    "requests": "requests",
    "failed": "failed",
    "cold_share": "share for whom a model was woken",
    "wait_p50_s": "their wait, median, s",
    "wait_p95_s": "their wait, 95th percentile, s",
    "wait_mean_s": "wait of all requests, mean, s",
    "wait_over_start_p50": "median wait over a bare start",
    "thrash": f"models woken within {AGAIN_S:g} s of their leaving",
    "start_s": "a bare start, s",
    "woken": "models woken",
    "ahead": "ahead of a request",
    "left": "for which another left",
    "two_on_a_slot": "looks with two engines on a slot",
}


def table(found: dict[str, dict[str, float]]) -> str:
    """A column of figures a play, by its name."""
    lines = [f"  {'':44}" + "".join(f"{name:>16}" for name in found)]
    for key, words in SAID.items():
        lines.append(f"  {words:44}" + "".join(f"{column[key]:>16g}" for column in found.values()))
    return "\n".join(lines)


def slots_told(played: Played) -> str:
    """How long a slot took and how long the start, told apart by whether another had to leave."""
    ready = [row for row in played.rows if row["state"] == "ready" and row["cause"] == "request"]
    return "\n".join(
        f"  into {name} {len(some)}: median {_median(some, 'asked_at', 'placed_at'):.2f} s for a slot, "
        f"then {_median(some, 'placed_at', 'ended_at'):.2f} s until ready"
        for name, some in (
            ("free slots", [row for row in ready if not row["evicted"]]),
            ("slots of others", [row for row in ready if row["evicted"]]),
        )
    )


def thrash(rows: Sequence[Row]) -> int:
    """Of these activations, oldest first: those of a model that another had made to leave shortly before."""
    left: dict[str, float] = {}
    count = 0
    for row in rows:
        at = _unix(row["asked_at"])
        count += at - left.get(row["deployment"]["name"], -AGAIN_S) < AGAIN_S
        if row["evicted"]:
            left[row["evicted"]] = _unix(row["placed_at"])
    return count


def _median(rows: Sequence[Row], since: str, until: str) -> float:
    return median([_unix(row[until]) - _unix(row[since]) for row in rows] or [0.0])


def _p95(waits: Sequence[float]) -> float:
    return waits[min(len(waits) - 1, int(0.95 * len(waits)))] if waits else 0.0


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
