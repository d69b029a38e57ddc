"""How long each model is kept after its last request: fixed keep-alives against one learned from the model's own idle
times. Each model by itself, as if it had a slot whenever it needs one: what counts is how often it had to be woken, and
for how long a slot was held while nothing was asked.

    python -m bench.keep_alive [TRACE] [--quick]

TRACE: clients of a model service standing in for models (ServeGen), those that are active less than half of the time.
Learned anew each six hours from the eight days before; judged from day 5 on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.forecast import JUDGE_FROM, TRACE, sporadic
from controlplane.domain.forecast.activity import Floats, Requests, runs
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.keepalive import LEAST, MOST, SHORTEST_S, learn
from controlplane.planning.traces import read

USUAL_S = 300.0
EVERY_S, LOOK_BACK_S = DAY_S / 4, 8 * DAY_S
FIXED_S = (60.0, 120.0, 150.0, 200.0, 250.0, USUAL_S, 360.0, 420.0, 500.0, 600.0, 1200.0)
Rule = Callable[[Floats], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--quick", action="store_true", help="the same: it takes 20 s")
    report(sporadic(read(parser.parse_args().trace).requests))


def report(requests: Requests) -> None:
    models = idle_times(requests)
    end = float(requests.at.max())
    print(f"{len(models)} models, days {JUDGE_FROM / DAY_S:.0f} to {end / DAY_S:.0f}")
    print(f"{'keep-alive':24}{'woken':>8}{'slot-hours idle':>17}{'against fixed at equal slot-hours':>36}")
    fixed = {each: judge(models, end, lambda _, each=each: each) for each in FIXED_S}
    for each, (woken, held) in fixed.items():
        print(f"{f'fixed {each:.0f} s':24}{woken:8}{held:17.1f}")
    curve = sorted((held, woken) for woken, held in fixed.values())
    figures = {}
    for name, rule in (("99th percentile", percentile), ("learned", learned)):
        woken, held = judge(models, end, rule)
        at_equal = float(np.interp(held, [one for one, _ in curve], [two for _, two in curve]))
        print(f"{name:24}{woken:8}{held:17.1f}{woken / at_equal - 1:+36.1%}")
        figures[name] = (woken, held, woken / at_equal)
    usual, ours = fixed[USUAL_S], figures["learned"]
    result = {"woken": ours[0] / usual[0], "held": ours[1] / usual[1], "woken_at_equal_hours": ours[2]}
    print("RESULT", json.dumps({key: round(value, 4) for key, value in result.items()}), flush=True)


def learned(idle_s: Floats) -> float:
    found = learn(idle_s.tolist(), usual_s=USUAL_S)
    return USUAL_S if found is None else found.keep_alive_s


def percentile(idle_s: Floats) -> float:
    """As Serverless in the Wild has it: the 99th percentile of the idle times within the bounds and a tenth more, where
    their histogram is not too even; the usual one else."""
    inside = idle_s[idle_s <= MOST * USUAL_S]
    if len(inside) < LEAST:
        return USUAL_S
    counts = np.histogram(inside, bins=40, range=(0.0, MOST * USUAL_S))[0]
    if counts.std() / counts.mean() < 2.0:
        return USUAL_S
    return float(np.clip(1.1 * np.quantile(inside, 0.99), SHORTEST_S, MOST * USUAL_S))


def idle_times(requests: Requests) -> list[tuple[Floats, Floats]]:
    """By model: when each idle time began, and how long it was."""
    busy = runs(requests, 0.0)
    found = []
    for model in range(busy.count):
        mine = busy.model == model
        since = busy.end[mine][:-1]
        found.append((since, busy.start[mine][1:] - since))
    return found


def judge(models: list[tuple[Floats, Floats]], end: float, rule: Rule) -> tuple[int, float]:
    """How often a model was woken, and the hours of slots held while nothing was asked."""
    woken, held_s = 0, 0.0
    for since, idle in models:
        for now in np.arange(JUDGE_FROM, end, EVERY_S):
            known = (since + idle < now) & (since + idle > now - LOOK_BACK_S)
            keep_alive_s = rule(idle[known])
            coming = idle[(since >= now) & (since < now + EVERY_S)]
            woken += int((coming > keep_alive_s).sum())
            held_s += float(np.minimum(coming, keep_alive_s).sum())
    return woken, held_s / 3600.0


if __name__ == "__main__":
    main()
