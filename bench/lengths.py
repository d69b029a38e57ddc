"""Whether quantiles of token lengths hold: told of each client's next window by those before it, on real clients.

    python -m bench.lengths [--quick]

ServeGen's clients, mean tokens of prompts and answers by windows of six hours, days 0-8; judged on days 5-8, each
window told without a look at it. A week has 28 windows, of which a client's first ten tell nothing. *Over*: what is
told at 95% over what came, by the median. Beside it: the last window times 1.5, and a day's mean times 1.5.
--quick: the first sixth of the clients.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from controlplane.domain.lengths import LEAST_REQUESTS, LEVELS, coming

TRACE = Path(__file__).parents[2] / "shared" / "traces" / "servegen_clients_lengths_6h.csv.gz"
WINDOW_S, DAY_S = 21_600, 86_400
JUDGE_FROM = 5 * DAY_S // WINDOW_S
GUESS = 1.5
Series = dict[str, dict[int, float]]  # mean tokens by client and window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixth of the clients")
    quick = parser.parse_args().quick
    result: dict[str, float] = {}
    for what in ("isl", "osl"):
        result |= judged(what, read(what), 6 if quick else 1)
    print("RESULT", json.dumps(result), flush=True)


def read(what: str) -> Series:
    found: Series = defaultdict(dict)
    with gzip.open(TRACE, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if (mean := float(row[f"{what}_mean"] or 0.0)) > 0:
                found[row["client"]][int(float(row["t_s"])) // WINDOW_S] = mean
    return found


def judged(what: str, clients: Series, part: int) -> dict[str, float]:
    held, over, guesses, took = [], [], [], []
    for name in sorted(clients)[: math.ceil(len(clients) / part)]:
        means = clients[name]
        for at in range(JUDGE_FROM, max(means) + 1):
            past = np.array([means.get(window, np.nan) for window in range(at)])
            if at not in means:
                continue
            began = time.perf_counter()
            told = coming(past * LEAST_REQUESTS, np.full(at, float(LEAST_REQUESTS)), day=DAY_S // WINDOW_S)
            took.append(1e3 * (time.perf_counter() - began))
            if told is None:
                continue
            held.append([means[at] <= one for one in told.means])
            over.append(told.at(0.95) / means[at])
            day = past[-DAY_S // WINDOW_S :]
            mean = float(np.nanmean(day)) if np.isfinite(day).any() else told.now
            guesses.append([means[at] <= GUESS * told.now, means[at] <= GUESS * mean])
    shares = np.array(held).mean(axis=0)
    print(f"{what}: {len(held)} windows of {len(clients) // part} clients, {np.mean(took):.1f} ms each")
    print("  held " + ", ".join(f"{share:.3f} at {level:g}" for share, level in zip(shares, LEVELS, strict=True)))
    print(f"  over {np.median(over):.2f} at 0.95; {GUESS:g} times the last {np.mean(guesses, axis=0)[0]:.3f}, "
          f"the day {np.mean(guesses, axis=0)[1]:.3f}")  # fmt: skip
    named = {f"{what}_held{100 * level:g}": round(float(one), 4) for one, level in zip(shares, LEVELS, strict=True)}
    return {**named, f"{what}_over95": round(float(np.median(over)), 3), f"{what}_ms": round(float(np.mean(took)), 2)}


if __name__ == "__main__":
    main()
