"""A simulated fleet of pooled models over days of a real trace, at high speed: the real pool and planner on a database.

    python -m bench.pool_fleet [TRACE] [--models 1000] [--nodes 64] [--days 3] [--minutes M] [--quick] [--json OUT]

Time is virtual, and everything that decides gets it as an argument. Real: waking.wake, pool.sweep, what the planner
forecasts and wants of the pool, habits, reports and specs, the agents' reconciling, on SQLite in a folder of its own.
Simulated: nodes, GPUs and engines, whose starts take about what was measured of forked and (on every fourth node) plain
ones; a gateway's event loop, routing and HTTP (bench/_pool_site.py says what of it is real). The pool's growing and
shrinking to what the planner wants, which in the product is a plan of scaling each minute, is played by the bench: the
pool has as many partitions as are wanted, or as there are active models, and gets one more for whoever finds none.

Models are the trace's sporadic clients and copies of them: each two hours earlier or later at most, each burst half a
minute (seeded). They are on record for three days before the days that are played. For comparison the same log is
played by bench/_loop.py with static pools, with keep-alive only, and with foresight. Looks at the pool come each
minute, not each 2 s, and a gateway asks again each 5 s, not twice a second. --minutes: what is played by then is told.
--quick: 80 models on 8 nodes for 3 hours.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._loop import Found, Policy, play
from bench.forecast import TRACE, sporadic
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import History
from controlplane.planning.traces import read

if TYPE_CHECKING:
    from bench._pool_run import Run

EPOCH = 2_209_075_200.0  # Monday 2040-01-02 UTC, when the played days begin: virtual time is ahead of the clock
FROM_DAY, WARM_DAYS, KEEP_ALIVE_S = 5, 3, 300
SHIFT_S, JITTER_S, SEED = 7200.0, 30.0, 7
GPUS = 8
SELDOM = 0.75  # of all windows; clients with requests in more are not sporadic


def main() -> None:
    options = _options()
    warm = 2 if options.quick else WARM_DAYS
    began = time.monotonic()
    requests = models_of(options.trace, options.models, warm, options.days)
    spent = time.monotonic() - began
    print(f"{len(requests.models)} models, {len(requests.at)} bursts, read in {spent:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        _set_up(Path(folder))
        from bench._pool_run import Run

        until = EPOCH + options.days * DAY_S
        run = Run(requests, options.nodes, GPUS, EPOCH, until, KEEP_ALIVE_S, 60.0 * options.minutes)
        began = time.monotonic()
        run.play()
        result = report(run, requests, options, time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--days", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.models, options.nodes, options.days = 80, 8, 0.125
    return options


def _set_up(home: Path) -> None:
    """A database of its own, and no broker: nodes learn of specs by the answers to their reports."""
    os.environ |= {
        "FOREBAY_HOME": str(home),
        "FOREBAY_DATABASE_URL": f"sqlite:///{home / 'db.sqlite3'}",
        "FOREBAY_REDIS_URL": "redis://127.0.0.1:9/0",
        "FOREBAY_LOG_LEVEL": "ERROR",
        "FOREBAY_QUALIFY": "never",
        "FOREBAY_CAPACITY_KEEP_ALIVE_S": str(KEEP_ALIVE_S),
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", interactive=False, verbosity=0)


def models_of(trace: Path, count: int, warm_days: int, days: float) -> Requests:
    """So many models from `warm_days` before EPOCH on; times are unix seconds, as they are played."""
    first, last = (FROM_DAY - warm_days) * DAY_S, (FROM_DAY + days) * DAY_S
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as part:
        _write_part(trace, part, first - DAY_S, last + DAY_S)
        part.flush()
        wide = copied(sporadic(read(Path(part.name)).requests), count)
    inside = wide.within(first, last)
    shift = EPOCH - FROM_DAY * DAY_S
    return Requests(inside.models, inside.model, inside.at + shift, inside.until + shift, inside.number)


def _write_part(trace: Path, part: Any, first: float, last: float) -> None:
    with gzip.open(trace, "rt") as whole:
        rows = [row for row in csv.DictReader(whole) if first <= float(row["t_s"]) < last]
    windows: dict[str, int] = {}
    for row in rows:
        windows[row["client"]] = windows.get(row["client"], 0) + 1
    most = SELDOM * len({row["t_s"] for row in rows})
    kept = csv.DictWriter(part, list(rows[0]))
    kept.writeheader()
    kept.writerows(row for row in rows if windows[row["client"]] < most)


def copied(requests: Requests, count: int) -> Requests:
    """The first copy of each client is itself."""
    random, clients = np.random.default_rng(SEED), len(requests.models)
    parts = []
    for turn in range(-(-count // clients)):
        mine = requests.only(np.arange(min(clients, count - turn * clients)))
        shift = random.uniform(-SHIFT_S, SHIFT_S, len(mine.models)) if turn else np.zeros(len(mine.models))
        jitter = random.uniform(-JITTER_S, JITTER_S, len(mine.at)) if turn else np.zeros(len(mine.at))
        by = shift[mine.model] + jitter
        parts.append((turn, mine, mine.at + by, mine.until + by))
    return Requests.of(
        tuple(f"model-{turn}-{place:03d}" for turn, mine, _, _ in parts for place in range(len(mine.models))),
        np.concatenate([mine.model + turn * clients for turn, mine, _, _ in parts]),
        np.concatenate([at for *_, at, _ in parts]),
        np.concatenate([until for *_, until in parts]),
        np.concatenate([mine.number for _, mine, _, _ in parts]),
    )


def report(run: Run, requests: Requests, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    days = (run.end - run.start) / DAY_S
    history = History(requests, KEEP_ALIVE_S, 600.0, run.start, run.end)
    others = compared(history, requests)
    found, waits = run.found(), np.array(run.waits_s)
    hours, used = run.slot_s / 3600.0, others["keep-alive only, 300 s"][0]
    print(f"\n{days:g} days of {len(requests.models)} models on {options.nodes * GPUS} GPUs in {seconds:.0f} s")
    print(f"{'':34}{'GPU-hours':>12}{'of used':>10}{'cold':>10}")
    print(f"{'the pool, as the planner wants':34}{hours:12.0f}{hours / used:10.2f}{100 * found['cold']:9.2f}%")
    for name, (slot_hours, cold) in others.items():
        print(f"{name:34}{slot_hours:12.0f}{slot_hours / used:10.2f}{100 * cold:9.2f}%")
    latency = {
        "wake_p50_ms": _quantile(run.gateway.wake_ms, 0.5),
        "wake_p99_ms": _quantile(run.gateway.wake_ms, 0.99),
        "sweep_p50_ms": _quantile(run.sweep_ms, 0.5),
        "sweep_p99_ms": _quantile(run.sweep_ms, 0.99),
        "plan_p50_s": round(_quantile(run.plan_s, 0.5), 3),
    }
    static = others[next(name for name in others if name.startswith("static"))][0]
    result = {
        "models": len(requests.models), "gpus": options.nodes * GPUS, "days": days, **found,
        "wait_p50_s": _quantile(waits, 0.5), "wait_p95_s": _quantile(waits, 0.95),
        "gpu_hours": round(hours, 1), "gpu_hours_static_peak": round(static, 1), "gpu_hours_used": round(used, 1),
        "saved_of_static_peak": round(1 - hours / static, 4),
        "saved_of_a_gpu_each": round(1 - hours / (len(requests.models) * days * 24), 4),
        **latency, **{f"full_{key}": value for key, value in run.full.items()}, **run.left,
    }  # fmt: skip
    for key, value in result.items():
        print(f"  {key:28} {value}")
    return result


def compared(history: History, requests: Requests) -> dict[str, tuple[float, float]]:
    """By name: (GPU-hours, share of activations that are cold), of the same log."""
    before = requests.within(0.0, EPOCH)
    warmed = int(_peak(History(before, KEEP_ALIVE_S, 600.0, before.at.min(), EPOCH))) if len(before.at) else 0
    judged = int(_peak(history))

    def held(wanted: Callable[[int], int]) -> tuple[float, float]:
        played = play(history.runs, history.moments, Policy(wanted), since=history.start, until=history.end)
        return played.slot_s / 3600.0, played.found[Found.COLD] / max(1, played.activations)

    return {
        f"static, peak ({judged}), known after": held(lambda _: judged),
        f"static, peak of days before ({warmed})": held(lambda _: warmed),
        "keep-alive only, 300 s": held(lambda _: 0),
        "clairvoyant, each 10 min": held(lambda place: int(history.peaks[place])),
    }


def _peak(history: History) -> float:
    return float(history.count.peak(np.array([history.start]), history.end - history.start)[0])


def _quantile(values: Any, share: float) -> float:
    return round(float(np.quantile(values, share)), 2) if len(values) else float("nan")


if __name__ == "__main__":
    main()
