"""A simulated fleet of pooled models over days of a real trace, at high speed: a real gateway, pool and planner.

    python -m bench.pool_fleet [TRACE] [--models 1000] [--nodes 64] [--days 3] [--minutes M] [--quick] [--json OUT]

Time is virtual (bench/_virtual.py). Real are a gateway's HTTP server, holding, asking, routing, trials of engines,
records and counts, over sockets on loopback (bench/_pool_front.py says what of it is put together otherwise); what the
planner forecasts and wants of the pool, pool.sweep, habits, reports and specs, and the agents' reconciling, on SQLite
in a folder of its own. Simulated are nodes, GPUs and engines: stand-ins with a port each, whose starts take about what
was measured of forked and (on every fourth node) plain ones. Between agents and control plane there is no HTTP. The
pool's growing and shrinking to what the planner wants, which in the product is a plan of scaling each minute, is played
by the bench: the pool has as many partitions as are wanted, or as there are active models, and gets one more for
whoever finds none.

Models are the trace's sporadic clients and copies of them: each two hours earlier or later at most, each burst half a
minute (seeded). They are on record for three days before the days that are played. A row of the trace is a burst of up
to ten minutes and stands for many requests: clients send one for all that overlap, which ends with the last of them,
so that a model has a request in flight at the same times (up to 14 minutes each). For comparison the same log is
played by bench/_loop.py with static pools, with keep-alive only, and with foresight. Looks at the pool come each minute
and two seconds after the last free slot was taken, not each 2 s, and a gateway asks again each 2 s, not twice a second.
--minutes: what is played by then is told. --quick: 80
models on 8 nodes for 3 hours.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._loop import Found, Policy, play
from bench._virtual import Clock, VirtualLoop, real_monotonic
from bench.forecast import TRACE, sporadic
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import History
from controlplane.planning.traces import read

if TYPE_CHECKING:
    from bench._pool_run import Run

EPOCH = 2_209_075_200.0  # Monday 2040-01-02 UTC, when the played days begin: virtual time is ahead of the clock
FROM_DAY, WARM_DAYS, KEEP_ALIVE_S = 5, 3, 300
SERVICE_S = 2.0  # of a request, on which the trace is silent
SHIFT_S, JITTER_S, SEED = 7200.0, 30.0, 7
GPUS = 8
LONGEST_S = 840.0  # of a request: a gateway gives an engine 900
SELDOM = 0.75  # of all windows; clients with requests in more are not sporadic


def main() -> None:
    options = _options()
    warm = 2 if options.quick else WARM_DAYS
    began = real_monotonic()
    requests = models_of(options.trace, options.models, warm, options.days)
    sent = overlapping(requests.within(EPOCH, EPOCH + options.days * DAY_S))
    bursts = len(requests.within(EPOCH, np.inf).at)
    print(
        f"{len(requests.models)} models; {sent.number.sum()} requests in {bursts} bursts, "
        f"of which clients send {len(sent.at)}; read in {real_monotonic() - began:.0f} s",
        flush=True,
    )
    clock = Clock(EPOCH)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        clock.install()
        _set_up(Path(folder))
        began = real_monotonic()
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
            result = runner.run(played(requests, sent, options))
        print(f"in {real_monotonic() - began:.0f} s, {clock.jumps} jumps of the clock")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps(result))


async def played(requests: Requests, sent: Requests, options: argparse.Namespace) -> dict[str, Any]:
    from bench import _pool_found as found
    from bench._pool_run import Run

    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    until, tasks = EPOCH + options.days * DAY_S, len(asyncio.all_tasks())
    run = Run(requests, sent, options.nodes, GPUS, EPOCH, until, KEEP_ALIVE_S, 60.0 * options.minutes)
    await run.open()
    await run.play()
    left = found.left(run)
    full = await found.with_all(run)
    await run.close()
    told = {**found.found(run), **found.held(run), **found.served(run)}
    return report(run, told, {**found.latencies(run), **full, **left, **found.after_close(run, loop, tasks)}, options)


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
        "DJANGO_ALLOW_ASYNC_UNSAFE": "1",  # nothing else is at work
        "FOREBAY_LOG_LEVEL": "ERROR",
        "FOREBAY_QUALIFY": "never",
        "FOREBAY_CAPACITY_KEEP_ALIVE_S": str(KEEP_ALIVE_S),
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    import django
    from django.core.management import call_command

    django.setup()
    from controlplane.lanes import keep_connections

    keep_connections()
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


def overlapping(requests: Requests) -> Requests:
    """One request for all bursts of a model of which each begins before those before it are over."""
    order = np.lexsort((requests.at, requests.model))
    rows = zip(*(getattr(requests, name)[order].tolist() for name in ("model", "at", "until", "number")), strict=True)
    merged: list[list[Any]] = []
    for model, at, until, number in rows:
        last = merged[-1] if merged else [-1, 0.0, 0.0, 0]
        if model == last[0] and at <= last[2] + SERVICE_S and max(until, last[2]) - last[1] <= LONGEST_S:
            last[2], last[3] = max(until, last[2]), last[3] + number
        else:
            merged.append([model, at, until, number])
    return Requests.of(requests.models, *zip(*merged, strict=True))


def report(run: Run, told: dict[str, Any], rest: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    days, requests = (run.end - run.start) / DAY_S, run.requests
    history = History(requests, KEEP_ALIVE_S, 600.0, run.start, run.end)
    others = compared(history, requests)
    hours, used = run.slot_s / 3600.0, others["keep-alive only, 300 s"][0]
    print(f"\n{days:g} days of {len(requests.models)} models on {options.nodes * GPUS} GPUs")
    print(f"{'':34}{'GPU-hours':>12}{'of used':>10}{'cold':>10}")
    print(f"{'the pool, as the planner wants':34}{hours:12.0f}{hours / used:10.2f}{100 * told['cold']:9.2f}%")
    for name, (slot_hours, cold) in others.items():
        print(f"{name:34}{slot_hours:12.0f}{slot_hours / used:10.2f}{100 * cold:9.2f}%")
    static = others[next(name for name in others if name.startswith("static"))][0]
    result = {
        "models": len(requests.models), "gpus": options.nodes * GPUS, "days": days, **told,
        "gpu_hours": round(hours, 1), "gpu_hours_static_peak": round(static, 1), "gpu_hours_used": round(used, 1),
        "saved_of_static_peak": round(1 - hours / static, 4),
        "saved_of_a_gpu_each": round(1 - hours / (len(requests.models) * days * 24), 4),
        **rest,
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


if __name__ == "__main__":
    main()
