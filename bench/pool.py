"""Sporadic models on a pool: more models than slots, real engines of a tiny model on CPU slots. Requests come by a
trace of a model service (clients of ServeGen active less than half of the time stand for models), played faster
than it was recorded. Counted: what failed, who had to wait for a model to be woken, how long, and how that
compares with how long an engine takes to start when nothing else is to be done.

    python -m bench.pool [TRACE] [--models 12] [--slots 3] [--minutes 20] [--free 1] [--plain] [--quick]

`--free 0` holds no slot ready: every model that comes when all slots are taken waits for another to leave, too.
`--plain` starts engines from nothing instead of forking them from a process that has vLLM imported.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import numpy as np

from bench._streams import WORDS
from bench.forecast import sporadic
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import traces
from tests.e2e.stack import Stack, eventually, make_tiny_model

ROOT = Path(__file__).resolve().parents[1]
TRACE = ROOT.parent / "shared" / "traces" / "servegen_clients_10min.csv.gz"
FROM_S = 6 * 86_400.0 + 10 * 3600.0  # day 6, ten in the morning
DUTY = 0.7  # of the slots' time, at most, that all models together are active
AGAIN_S = 60.0  # a model that is woken again so soon after it was made to leave was better left


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, as played."""

    keep_alive: float
    residence: float  # nobody is made to leave sooner
    gap: float  # at least, between two requests for one model


@dataclass(slots=True)
class Played:
    """What clients saw."""

    requests: int = 0
    failed: int = 0
    waits_s: list[float] = field(default_factory=list)  # of those whose model had to be woken
    why: Counter[str] = field(default_factory=Counter)
    twice: int = 0  # looks at which a slot had two engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--faster", type=float, default=12.0, help="than the trace was recorded")
    parser.add_argument("--free", type=int, default=1, help="slots kept free")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--quick", action="store_true", help="4 models, 2 slots, 18 seconds")
    options = parser.parse_args()
    if options.quick:
        options.models, options.slots, options.minutes, options.faster, options.free = 4, 2, 0.4, 150.0, 0
    pace = Pace(4.0, 2.0, 1.0) if options.quick else Pace(20.0, 10.0, 3.0)
    plan = schedule(options, pace)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        stack = Stack(Path(folder) / "home", demo="none", slots=options.slots)
        stack.environ |= {
            "FOREBAY_POOL_FREE": str(options.free),
            "FOREBAY_POOL_MIN_RESIDENCE_S": str(pace.residence),
            "FOREBAY_FAST_START": "off" if options.plain else "auto",
            "FOREBAY_QUALIFY": "never",
        }
        try:
            stack.up()
            names, start_s = prepare(stack, options.models, options.slots, int(pace.keep_alive))
            played = asyncio.run(play(stack, names, plan))
            report(stack, played, start_s, options)
        finally:
            stack.clean_up()


def schedule(options: argparse.Namespace, pace: Pace) -> list[tuple[float, int]]:
    """(seconds from the beginning, model), in order: of the clients that come and go the most among those that are
    active for so little of that time that the slots would do for all of them, on the mean."""
    seconds = options.minutes * 60.0
    requests = sporadic(_day(options.trace)).within(FROM_S, FROM_S + seconds * options.faster)
    times = {
        int(model): _thinned((requests.at[requests.model == model] - FROM_S) / options.faster, pace.gap)
        for model in np.unique(requests.model)
    }
    most = DUTY * options.slots * seconds / options.models
    rare = {model: at for model, at in times.items() if _active(at, pace) < most}
    chosen = sorted(rare, key=lambda model: (-_comings(rare[model], pace), model))[: options.models]
    if len(chosen) < options.models:
        raise SystemExit(f"only {len(chosen)} models of the trace are that sporadic then")
    return sorted((float(moment), place) for place, model in enumerate(chosen) for moment in rare[model])


def _day(trace: Path) -> Requests:
    """Of the day that is played: drawing all days takes two minutes."""
    first, last = FROM_S // DAY_S * DAY_S, (FROM_S // DAY_S + 1) * DAY_S
    with gzip.open(trace, "rt") as whole, tempfile.NamedTemporaryFile("w", suffix=".csv") as part:
        rows = csv.DictReader(whole)
        kept = csv.DictWriter(part, rows.fieldnames or [])
        kept.writeheader()
        kept.writerows(row for row in rows if first <= float(row["t_s"]) < last)
        part.flush()
        return traces.read(Path(part.name)).requests


def _thinned(at: np.ndarray, gap_s: float) -> np.ndarray:
    kept: list[float] = []
    for moment in np.sort(at).tolist():
        if not kept or moment - kept[-1] >= gap_s:
            kept.append(moment)
    return np.array(kept)


def _active(at: np.ndarray, pace: Pace) -> float:
    """Seconds with a request within the keep-alive before."""
    return float(np.minimum(np.diff(at), pace.keep_alive).sum()) + pace.keep_alive


def _comings(at: np.ndarray, pace: Pace) -> int:
    return int((np.diff(at) > pace.keep_alive).sum()) + 1


def prepare(stack: Stack, models: int, slots: int, keep_alive_s: int) -> tuple[list[str], float]:
    """The slots, the deployments, and how long an engine takes to start where nobody is in its way."""
    folder = stack.home / "models" / "tiny"
    make_tiny_model(folder)
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=30, what="a node")[0]["id"]
    rows = stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(slots)]})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(folder)})["id"]
    names = [f"sporadic-{number:02}" for number in range(models)]
    for name in names:
        body = {"name": name, "model": model, "mode": "pooled", "keep_alive_s": keep_alive_s}
        stack.rest("POST", "/deployments", json=body)
    start_s = bare_start_s(stack, stack.partitions()[0]["id"])
    for row in stack.partitions():
        stack.rest("PATCH", f"/partitions/{row['id']}", json={"pool": True})
    assert len(stack.partitions()) == slots, rows
    return names, start_s


def bare_start_s(stack: Stack, partition: int) -> float:
    """From the process's start to its first answer, by the agent."""
    first = stack.rest("GET", "/deployments")["results"][0]["id"]
    seconds = []
    for _ in range(2):  # the first one finds cold caches
        body = {"deployment": first, "role": "aggregated"}
        stack.rest("POST", f"/partitions/{partition}/assign", json=body)
        row = eventually(lambda: _ready(stack, partition), within_s=120, what="an engine")
        seconds.append(row["ready_after_s"])
        stack.rest("POST", f"/partitions/{partition}/release", json={})
        eventually(lambda: stack.rest("GET", f"/partitions/{partition}")["phase"] is None, within_s=60, what="its end")
    return min(seconds)


def _ready(stack: Stack, partition: int) -> dict[str, float] | None:
    row = stack.rest("GET", f"/partitions/{partition}")
    return row if row["confirmed"] and row["ready_after_s"] else None


async def play(stack: Stack, names: list[str], plan: list[tuple[float, int]]) -> Played:
    played, began = Played(), time.monotonic()
    looking = asyncio.create_task(asyncio.to_thread(_watch, stack, played, plan[-1][0] + 1.0))
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = []
        for at, model in plan:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tasks.append(asyncio.create_task(_ask(session, stack, names[model], len(tasks), played)))
        await asyncio.gather(*tasks)
    await looking
    return played


async def _ask(session: aiohttp.ClientSession, stack: Stack, name: str, number: int, played: Played) -> None:
    played.requests += 1
    prompt = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(12))
    body = {"model": name, "prompt": prompt, "max_tokens": 8, "temperature": 0}
    headers = {"Authorization": f"Bearer {stack.key}"}
    try:
        async with session.post(f"{stack.gateway}/v1/completions", json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200 or not json.loads(text)["choices"]:
                played.failed += 1
                played.why[f"{answer.status} {text[:120]}"] += 1
            steps = dict(step.strip().split(";dur=") for step in answer.headers.get("server-timing", "").split(","))
            if "wake" in steps:
                played.waits_s.append(float(steps["wake"]) / 1e3)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        played.failed += 1
        played.why[repr(error)[:120]] += 1


def _watch(stack: Stack, played: Played, seconds: float) -> None:
    """Count the looks at which two engines had one slot."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        played.twice += any(count > 1 for count in stack.engines().values())
        time.sleep(0.5)


def report(stack: Stack, played: Played, start_s: float, options: argparse.Namespace) -> None:
    rows = stack.rest("GET", "/activations?page_size=500")["results"][::-1]
    woken = [row for row in rows if row["state"] == "ready"]
    left: dict[str, float] = {}
    thrash = 0
    for row in rows:
        at = _unix(row["asked_at"])
        if at - left.get(row["deployment"]["name"], -AGAIN_S) < AGAIN_S:
            thrash += 1
        if row["evicted"]:
            left[row["evicted"]] = _unix(row["placed_at"])
    waits = sorted(played.waits_s)
    middle = median(waits) if waits else 0.0
    how = "started plainly" if options.plain else "forked"
    print(f"{options.models} models on {options.slots} slots for {options.minutes:g} min; ", end="")
    print(f"trace {options.faster:g} times faster; slots kept free {options.free}; engines {how}")
    print(f"  requests {played.requests}, failed {played.failed}, for whom a model was woken {len(waits)}")
    for why, count in played.why.most_common(5):
        print(f"    {count} x {why}")
    print(f"  models woken {len(woken)}, failed {sum(row['state'] == 'failed' for row in rows)}, ", end="")
    print(f"another left for it {sum(bool(row['evicted']) for row in rows)}, again within {AGAIN_S:g} s {thrash}")
    longest = max(waits, default=0.0)
    print(f"  a bare start {start_s:.2f} s; ", end="")
    print(f"waited: median {middle:.2f} s, p95 {_p95(waits):.2f} s, most {longest:.2f} s")
    for name, some in (("free slots", [row for row in woken if not row["evicted"]]), ("slots of others", _left(woken))):
        until = [_unix(row["placed_at"]) - _unix(row["asked_at"]) for row in some] or [0.0]
        then = [_unix(row["ended_at"]) - _unix(row["placed_at"]) for row in some] or [0.0]
        print(
            f"  into {name} {len(some)}: median {median(until):.2f} s for a slot, then {median(then):.2f} s until ready"
        )
    print(f"  looks with two engines on a slot: {played.twice}")
    figures = {
        "requests": played.requests,
        "failed": played.failed,
        "cold_share": round(len(waits) / max(1, played.requests), 4),
        "wait_p50_s": round(middle, 2),
        "wait_p95_s": round(_p95(waits), 2),
        "wait_over_start_p50": round(middle / start_s, 2),
        "thrash": thrash,
        "start_s": round(start_s, 2),
        "woken": len(woken),
        "two_on_a_slot": played.twice,
    }
    print("RESULT", json.dumps(figures), flush=True)


def _left(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["evicted"]]


def _p95(waits: list[float]) -> float:
    return waits[min(len(waits) - 1, int(0.95 * len(waits)))] if waits else 0.0


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    main()
