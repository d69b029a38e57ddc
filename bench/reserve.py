"""What holding slots ready by the forecast comes to: a pool played through a real trace, beside other ways to hold.

    python -m bench.reserve [TRACE] [--quick] [--start 5] [--leave 2] [--grow 30] [--json OUT]

TRACE: clients of a model service standing in for models (ServeGen's windows of counts), one slot each; `sporadic` keeps
those that are active less than half of the time. Each ten minutes the default forecaster says how many models will be
active at most; the policy's level of that is held, as `planning.reserve` does. Requests come by the trace. Warm-up on
days 0-4, judged on 5-8; every policy has the same keep-alive of 300 s, grows when an activation finds no slot, and
never has fewer slots than active models. An activation is cold when the pool had to grow for it. --start, --leave and
--grow are assumed seconds of an engine's start, a model's leaving and a new slot's coming: they set the waits and
nothing else. --quick: `sporadic` alone, one target, forecasts from day 3 on.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench._loop import Found, Played, Policy, Times, play
from bench.forecast import JUDGE_FROM, TRACE, sporadic
from controlplane.domain import holding
from controlplane.domain.forecast import hazards
from controlplane.domain.forecast.activity import Floats, Ints, Requests, runs
from controlplane.domain.forecast.backtest import whole
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import make
from controlplane.domain.reservation import Risk
from controlplane.planning.traces import WINDOW_S, read

KEEP_ALIVE_S, HORIZON_S = 300.0, 600.0
LONG_KEEP_ALIVES_S = (3600.0, 4 * 3600.0)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # that the product has told
LOOK_BACK_S = 8 * DAY_S  # of habits
TARGETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # share of activations that may be cold
SHOWN = (0.001, 0.01, 0.05)
AIM = 0.01
SELDOM = 0.75  # of all windows; few requests in each make a model active for less
BASELINE = "last"
FEW = 2
QUICK_FROM = 3 * DAY_S  # two days before what is judged: what a worker that begins asks about anew
HEAD = ("slot-hours", "of used", "saved", "cold", "cold/h", "resident", "wait s", "p95 s")


@dataclass(frozen=True, slots=True)
class Row:
    policy: str
    played: Played


def main() -> None:
    options = _options()
    times = Times(options.start, options.leave, options.grow)
    began = time.monotonic()
    requests, note = _read(options.trace, options.quick)
    print(f"{options.trace.name}: {len(requests.models)} clients, read in {time.monotonic() - began:.0f} s\n{note}")
    print(f"Assumed: a start takes {times.start:g} s, a leaving {times.leave:g} s, a new slot {times.grow:g} s")
    scenes = [("sporadic", sporadic(requests))] + ([] if options.quick else [("servegen", requests)])
    result: dict[str, Any] = {}
    for name, mine in scenes:
        rows, swept = scene(mine, (AIM,), QUICK_FROM) if options.quick else scene(mine, TARGETS)
        show(name, mine, rows, times)
        result |= summary(name, rows, swept, times)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--start", type=float, default=5.0)
    parser.add_argument("--leave", type=float, default=2.0)
    parser.add_argument("--grow", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def scene(
    requests: Requests, targets: Sequence[float], begin: float = 0.0
) -> tuple[list[Row], list[tuple[float, Played]]]:
    """The rows of the table, and the forecaster's pool at each target. `begin`: of the first forecast."""
    history = past_of(requests, begin)
    told, chances = forecasts(history, "best"), Chances(history)
    run = partial(_play, history)
    swept = [(one, run(by_forecast(history, told, one), chances)) for one in targets]
    rows = [Row(f"forecast, target {100 * one:g}%", played) for one, played in swept if one in SHOWN]
    aimed = by_forecast(history, told, AIM)
    rows += [
        Row(f"the same at {100 * AIM:g}%, {FEW} kept empty", run(aimed, chances, empty=FEW)),
        Row(f"the same at {100 * AIM:g}%, none kept empty", run(aimed, chances, empty=0)),
    ]
    last = by_forecast(history, forecasts(history, BASELINE), AIM)
    rows.append(Row(f"last peak + tracker, {100 * AIM:g}%", run(last, chances)))
    warmed = int(history.count.peak(np.zeros(1), JUDGE_FROM)[0])
    judged = int(history.count.peak(np.array([JUDGE_FROM]), history.end - JUDGE_FROM)[0])
    rows += [
        Row("a slot for every model", run(lambda _: len(requests.models), chances, empty=0)),
        Row(f"static, peak of days 0-4 ({warmed})", run(lambda _: warmed, chances)),
        Row(f"static, peak of days 5-8 ({judged}), known after", run(lambda _: judged, chances)),
    ]
    just = just_enough(history, AIM)
    rows.append(Row(f"static, {100 * AIM:g}% cold ({just}), known after", run(lambda _: just, chances)))
    rows.append(Row("keep-alive only, 300 s", run(lambda _: 0, chances)))
    rows += [Row(f"keep-alive only, {one / 3600:g} h", _kept(history, one)) for one in LONG_KEEP_ALIVES_S]
    rows.append(Row("clairvoyant, each 10 min", run(lambda place: int(history.peaks[place]), chances)))
    return rows, swept


def past_of(requests: Requests, begin: float = 0.0) -> History:
    end = np.ceil(requests.at.max() / DAY_S) * DAY_S
    return History(requests, KEEP_ALIVE_S, HORIZON_S, begin, end)


def forecasts(history: History, method: str) -> Ints:
    """What is told at each moment, as the product writes it down; shape (moments, levels)."""
    (asked,) = make([method], LEVELS)
    told = [asked.tell(history.seen_at(place)).copy() for place in range(len(history.moments))]
    return np.maximum(whole(np.array(told)), history.active[:, None]).astype(np.int64)


def by_forecast(history: History, told: Ints, most_cold: float) -> Callable[[int], int]:
    """By moment: slots to hold, by the product's own rule."""
    level, known = holding.level(Risk(most_cold), HORIZON_S), len(history.requests.models)

    def wanted(place: int) -> int:
        return holding.wanted(
            LEVELS, told[place].tolist(), level, known_models=known, active=int(history.active[place])
        )

    return wanted


@dataclass(slots=True)
class Chances:
    """Of each model's return, by moment, as the planner tells the pool; computed once."""

    history: History
    _known: dict[int, Floats]

    def __init__(self, history: History) -> None:
        self.history, self._known = history, {}

    def __call__(self, place: int) -> Floats:
        if place not in self._known:
            seen = self.history.seen_at(place)
            past = seen.runs(LOOK_BACK_S)
            known, there = hazards.learn(past, seen.now, LOOK_BACK_S), hazards.at(past, seen.now)
            self._known[place] = hazards.returning(known, there, seen.now, HORIZON_S)
        return self._known[place]


def _play(history: History, wanted: Callable[[int], int], chances: Chances, *, empty: int | None = None) -> Played:
    policy = Policy(wanted, chances, empty)
    return play(history.runs, history.moments, policy, since=JUDGE_FROM, until=history.end)


def _kept(history: History, keep_alive_s: float) -> Played:
    """A longer keep-alive and nothing else. Counted are the activations of the table's keep-alive: those that
    this one spares find their engine there."""
    longer = runs(history.requests, keep_alive_s)
    played = play(longer, history.moments, Policy(lambda _: 0), since=JUDGE_FROM, until=history.end)
    begun = int((history.runs.start >= JUDGE_FROM).sum())
    played.found[Found.RESIDENT] += begun - played.activations
    played.used_s = history.count.mean(JUDGE_FROM, history.end) * (history.end - JUDGE_FROM)
    return played


def just_enough(history: History, most_cold: float) -> int:
    """The fewest slots, always held, with which so few of the judged activations are cold."""
    begun = history.runs.start[history.runs.start >= JUDGE_FROM]
    return int(np.quantile(history.count.at(begun), 1.0 - most_cold, method="higher"))


def show(name: str, requests: Requests, rows: Sequence[Row], times: Times) -> None:
    static, days = _static(rows), (np.ceil(requests.at.max() / DAY_S) * DAY_S - JUDGE_FROM) / DAY_S
    count = rows[0].played.activations
    print(f"\n{name}: {len(requests.models)} models, {count} activations in {days:g} days; saved: of the static peak")
    print(f"{'':44}" + "".join(f"{one:>12}" for one in HEAD))
    for row in rows:
        one, waits = row.played, row.played.waits_s(times)
        cells = (
            f"{one.slot_s / 3600:12.0f}{one.slot_s / one.used_s:12.2f}{100 * (1 - one.slot_s / static.slot_s):11.1f}%"
            f"{100 * one.cold:11.2f}%{one.found[Found.COLD] / days / 24:12.2f}"
            f"{100 * one.found[Found.RESIDENT] / one.activations:11.1f}%{waits.mean():12.2f}{_p95(waits):12.1f}"
        )
        print(f"{row.policy:44}{cells}", flush=True)


def summary(
    name: str, rows: Sequence[Row], swept: Sequence[tuple[float, Played]], times: Times
) -> dict[str, float | None]:
    static = _static(rows)
    aimed = next(played for target, played in swept if target == AIM)
    each = next(row.played for row in rows if row.policy == "a slot for every model")
    clairvoyant = next(row.played for row in rows if row.policy.startswith("clairvoyant"))
    just = next(row.played for row in rows if "cold (" in row.policy)
    at_aim = hours_at(swept, AIM)
    return {
        f"slot_hours_{name}": round(aimed.slot_s / 3600, 1),
        f"cold_{name}": round(aimed.cold, 5),
        f"wait_mean_s_{name}": round(float(aimed.waits_s(times).mean()), 3),
        f"saved_of_static_peak_{name}": _share(aimed.slot_s, static.slot_s),
        f"saved_of_a_slot_each_{name}": _share(aimed.slot_s, each.slot_s),
        f"over_clairvoyant_{name}": round(aimed.slot_s / clairvoyant.slot_s, 4),
        f"saved_of_static_peak_at_1pct_cold_{name}": None if at_aim is None else _share(at_aim * 3600, static.slot_s),
        f"saved_of_static_1pct_at_1pct_cold_{name}": None if at_aim is None else _share(at_aim * 3600, just.slot_s),
    }


def hours_at(swept: Sequence[tuple[float, Played]], cold: float) -> float | None:
    """Slot-hours at which just so many activations were cold, between two targets by a straight line; known after."""
    points = sorted((played.cold, played.slot_s / 3600.0) for _, played in swept)
    shares, hours = zip(*points, strict=True)
    return float(np.interp(cold, shares, hours)) if shares[0] <= cold <= shares[-1] else None


def _static(rows: Sequence[Row]) -> Played:
    return next(row.played for row in rows if row.policy.startswith("static, peak of days 5-8"))


def _share(less: float, more: float) -> float:
    return round(1.0 - less / more, 4)


def _p95(waits: Floats) -> float:
    return float(np.quantile(waits, 0.95, method="higher"))


def _read(trace: Path, quick: bool) -> tuple[Requests, str]:
    if not quick:
        found = read(trace)
        return found.requests, found.note
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as part:
        _write_seldom(trace, part)
        part.flush()
        found = read(Path(part.name))
    return found.requests, found.note + " Clients that are there all the while were left out before the draw."


def _write_seldom(trace: Path, part: Any) -> None:
    """The clients that are missing from enough windows that they may be sporadic: drawing all takes long."""
    rows = list(_rows(trace))
    windows = Counter(row["client"] for row in rows)
    most = SELDOM * (max(float(row["t_s"]) for row in rows) + WINDOW_S) / WINDOW_S
    kept = csv.DictWriter(part, list(rows[0]))
    kept.writeheader()
    kept.writerows(row for row in rows if windows[row["client"]] < most)


def _rows(trace: Path) -> Iterator[dict[str, str]]:
    with gzip.open(trace, "rt") as whole_trace:
        yield from csv.DictReader(whole_trace)


if __name__ == "__main__":
    main()
