"""How many models will be active: every method and baseline over a real trace, without a look ahead.

    python -m bench.forecast [TRACE] [--quick] [--json OUT]

TRACE: clients of a model service standing in for models (ServeGen's windows of counts); `sporadic` keeps those that are
active less than half of the time at a keep-alive of 300 s. Warm-up days 0-4, judged from day 5 on. Every method has the
same online tracker; `ratio` is ours over the best baseline in mean reserve at equal coverage. --quick: one keep-alive
and one horizon, and milliseconds of 313 models alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.domain.forecast.activity import Requests, runs
from controlplane.domain.forecast.backtest import Score, run
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import BASELINES, NAMES, make
from controlplane.planning.traces import read

TRACE = Path(__file__).parents[2] / "shared" / "traces" / "servegen_clients_10min.csv.gz"
LEVELS = (0.95, 0.99)
JUDGE_FROM = 5 * DAY_S
DUTY, DUTY_KEEP_ALIVE_S = 0.5, 300.0
WHAT = ("coverage", "busy", "reserve", "equal", "pinball", "cold")
HEAD = "".join(f"{what + str(level):>12}" for what in WHAT for level in (95, 99))
SCENES = ((300, 600), (60, 600), (300, 3600), (60, 3600))  # keep-alive, horizon; the first is summed up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    trace = read(options.trace)
    print(f"{options.trace.name}: {len(trace.requests.models)} clients, read in {time.monotonic() - began:.0f} s")
    print(trace.note)
    result: dict[str, Any] = {}
    for name, requests in (("sporadic", sporadic(trace.requests)), ("servegen", trace.requests)):
        for keep_alive_s, horizon_s in SCENES[:1] if options.quick else SCENES:
            scores = scene(name, requests, keep_alive_s, horizon_s)
            if (keep_alive_s, horizon_s) == SCENES[0]:
                result |= summary(name, scores)
            result[f"{name}_{keep_alive_s}_{horizon_s}"] = [plain(score) for score in scores]
    result |= speed(trace.requests, (313,) if options.quick else (100, 313, 1000, 5000))
    result["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps({key: value for key, value in result.items() if not isinstance(value, list)}))


def sporadic(requests: Requests) -> Requests:
    active = runs(requests, DUTY_KEEP_ALIVE_S)
    on_s = np.bincount(active.model, active.end - active.start, minlength=active.count)
    return requests.only(np.flatnonzero(on_s / (active.end.max() - active.start.min()) < DUTY))


def scene(name: str, requests: Requests, keep_alive_s: float, horizon_s: float) -> list[Score]:
    end = np.ceil(requests.at.max() / DAY_S) * DAY_S
    history = History(requests, keep_alive_s, horizon_s, 0.0, end)
    scores = run(history, make(NAMES, LEVELS), LEVELS, judge_from=JUDGE_FROM).scores
    mean = history.peaks[history.moments >= JUDGE_FROM].mean()
    print(f"\n{name}: {len(requests.models)} models, keep-alive {keep_alive_s} s, horizon {horizon_s} s, ", end="")
    print(f"mean Y {mean:.1f}\n{'':24}{HEAD}    ms")
    for score in scores:
        pairs = (score.coverage, score.busy_coverage, score.reserve, score.equal_reserve, score.pinball, score.cold)
        digits = (3, 3, 1, 1, 3, 4)
        cells = "".join(f"{value:12.{places}f}" for pair, places in zip(pairs, digits, strict=True) for value in pair)
        print(f"{score.method:24}{cells}{score.ms_per_decision:6.1f}", flush=True)
    return scores


def summary(name: str, scores: list[Score]) -> dict[str, float]:
    """NAMES puts ours first; the baselines are told by their place in it."""
    ours = scores[0]
    baselines = [scores[NAMES.index(one)] for one in BASELINES]
    static = next(one for one in scores if one.method == "static peak")
    return {
        f"coverage95_{name}": round(float(ours.coverage[0]), 4),
        f"busy95_{name}": round(float(ours.busy_coverage[0]), 4),
        f"reserve99_{name}": round(float(ours.reserve[1]), 2),
        f"coverage99_{name}": round(float(ours.coverage[1]), 4),
        f"ratio_reserve99_{name}": round(
            float(ours.equal_reserve[1]) / min(float(one.equal_reserve[1]) for one in baselines), 4
        ),
        f"cold99_{name}": round(float(ours.cold[1]), 5),
        f"saved_of_static_{name}": round(1.0 - float(ours.held[1] / static.held[1]), 4),
    }


def plain(score: Score) -> dict[str, Any]:
    values = {key: getattr(score, key) for key in Score.__slots__}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}


def speed(requests: Requests, sizes: Sequence[int]) -> dict[str, float]:
    """Of the default once it has learned, by how many models there are; more models than the trace's are its copies."""
    result = {}
    requests = requests.within(4 * DAY_S, 7 * DAY_S)
    count = len(requests.models)
    for models in sizes:
        chosen = np.arange(models) % count
        turns = (chosen[turn : turn + count] for turn in range(0, models, count))
        copies = [requests.only(turn) for turn in turns]
        history = History(joined(copies), 300.0, 600.0, 5 * DAY_S, 7 * DAY_S)
        (ours,) = make(["best"], LEVELS)
        for place in range(150):
            ours.tell(history.seen_at(place))
        began = time.perf_counter()
        for place in range(150, 186):
            ours.tell(history.seen_at(place))
        result[f"ms_per_decision_{models}"] = round((time.perf_counter() - began) / 36 * 1e3, 1)
    return result


def joined(parts: list[Requests]) -> Requests:
    """Side by side, each copy's models as models of their own, an hour later than the copy before."""
    first = np.cumsum([0, *(len(part.models) for part in parts)])
    return Requests.of(
        tuple(f"{turn}/{name}" for turn, part in enumerate(parts) for name in part.models),
        np.concatenate([part.model + first[turn] for turn, part in enumerate(parts)]),
        np.concatenate([part.at + 3600.0 * turn for turn, part in enumerate(parts)]),
        np.concatenate([part.until + 3600.0 * turn for turn, part in enumerate(parts)]),
        np.concatenate([part.number for part in parts]),
    )


if __name__ == "__main__":
    main()
