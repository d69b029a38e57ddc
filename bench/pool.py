"""Sporadic models on a pool: more models than slots, real engines of a tiny model on CPU slots. Requests come by a
trace of a model service (clients of ServeGen active less than half of the time stand for models), played faster
than it was recorded. Counted: what failed, who had to wait for a model to be woken, how long, and how that
compares with how long an engine takes to start when nothing else is to be done.

    python -m bench.pool [TRACE] [--models 12] [--slots 3] [--minutes 20] [--both | --off] [--free 1] [--plain]

`--both` plays the same twice, with prediction and without; `--off` without. What the trace has of these models in the
days before is imported first, as much faster. The product's own clock is not: it sees a day in two hours (at 12),
counts by whole minutes, and takes nothing shorter than five of them (an hour of the trace) for a schedule.
`--quick` plays 4 models on 2 slots for 18 seconds; nothing is learned by then.
`--free 0` holds no slot ready: every model that comes when all slots are taken waits for another to leave, too.
`--plain` starts engines from nothing instead of forking them from a process that has vLLM imported.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from bench._pool_figures import Played, figures, slots_told, table
from bench._sporadic import Drawn, Pace, draw
from bench._streams import WORDS
from controlplane.domain.forecast.activity import Requests
from controlplane.planning import traces
from tests.e2e.stack import Stack, eventually, make_tiny_model

ROOT = Path(__file__).resolve().parents[1]
TRACE = ROOT.parent / "shared" / "traces" / "servegen_clients_10min.csv.gz"
LEARN_S = 100.0  # from the import to the first request: habits are learned each minute while none are known
PAGE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--faster", type=float, default=12.0, help="than the trace was recorded")
    parser.add_argument("--days", type=float, default=6.0, help="of the trace that are imported, before what is played")
    parser.add_argument("--free", type=int, default=1, help="slots kept free")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--both", action="store_true", help="with prediction and without")
    parser.add_argument("--off", action="store_true", help="without prediction")
    parser.add_argument("--quick", action="store_true", help="4 models, 2 slots, 18 seconds")
    options = parser.parse_args()
    if options.quick:
        options.models, options.slots, options.minutes, options.faster, options.free = 4, 2, 0.3, 200.0, 0
        options.days = 0.0
    pace = Pace(4.0, 2.0, 1.0, options.faster) if options.quick else Pace(20.0, 10.0, 3.0, options.faster)
    drawn = draw(
        options.trace, pace, seconds=options.minutes * 60.0, models=options.models, slots=options.slots,
        days=options.days,
    )  # fmt: skip
    ways = [True, False] if options.both else [not options.off]
    report({predict: one_play(options, pace, drawn, predict) for predict in ways}, options)


def one_play(options: argparse.Namespace, pace: Pace, drawn: Drawn, predict: bool) -> Played:
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        stack = Stack(Path(folder) / "home", demo="none", slots=options.slots)
        stack.environ |= {
            "FOREBAY_POOL_FREE": str(options.free),
            "FOREBAY_POOL_EMPTIED": str(options.free),  # whatever the forecast of so few models holds
            "FOREBAY_POOL_MIN_RESIDENCE_S": str(pace.residence),
            "FOREBAY_POOL_PREDICT": "1" if predict else "0",
            "FOREBAY_CAPACITY_KEEP_ALIVE_S": str(max(5, int(pace.keep_alive))),
            "FOREBAY_FAST_START": "off" if options.plain else "auto",
            "FOREBAY_QUALIFY": "never",
        }
        try:
            with ThreadPoolExecutor(1) as beside:
                made = beside.submit(make_tiny_model, stack.home / "models" / "tiny")
                stack.up()
                made.result()
            names, start_s = prepare(stack, options.models, options.slots, int(pace.keep_alive))
            predicted = predict and learn(stack, names, drawn.past)
            played = asyncio.run(play(stack, names, drawn.plan))
            played.start_s, played.predicted = start_s, predicted
            played.rows = stack.rest("GET", f"/activations?page_size={PAGE}")["results"][::-1]
            return played
        finally:
            stack.clean_up()


def prepare(stack: Stack, models: int, slots: int, keep_alive_s: int) -> tuple[list[str], float]:
    """The slots, the deployments, and how long an engine takes to start where nobody is in its way."""
    folder = stack.home / "models" / "tiny"
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


def learn(stack: Stack, names: list[str], past: Requests) -> bool:
    """Import it so that it ends where the play begins, and wait until then; whether habits were learned meanwhile."""
    if not len(past.at):
        return False
    begin = time.time() + LEARN_S
    moved = Requests(tuple(names), past.model, past.at + begin, past.until + begin, past.number)
    with tempfile.TemporaryDirectory() as folder:
        traces.write(moved, file := Path(folder) / "past.csv")
        packed = base64.b64encode(gzip.compress(file.read_bytes())).decode()
    stack.rest("POST", "/capacity/activity", json={"gzip_base64": packed, "name": "the days before"})
    time.sleep(max(0.0, begin - time.time()))
    return stack.rest("GET", "/pool")["habits_at"] is not None


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


def report(plays: dict[bool, Played], options: argparse.Namespace) -> None:
    how = "started plainly" if options.plain else "forked"
    print(f"{options.models} models on {options.slots} slots for {options.minutes:g} min; ", end="")
    print(f"trace {options.faster:g} times faster; slots kept free {options.free}; engines {how}")
    found = {predict: figures(played) for predict, played in plays.items()}
    print(table({_named(predict, plays[predict]): column for predict, column in found.items()}))
    for predict, played in plays.items():
        print(f"  {_named(predict, played)}:\n{slots_told(played)}")
        for why, count in played.why.most_common(5):
            print(f"    {count} x {why}")
    first = next(iter(found))
    told: dict[str, Any] = dict(found[first])
    if len(found) > 1:
        told |= {f"off_{key}": value for key, value in found[False].items()}
    print("RESULT", json.dumps(told), flush=True)


def _named(predict: bool, played: Played) -> str:
    if not predict:
        return "not predicted"
    return "predicted" if played.predicted else "nothing learned"


if __name__ == "__main__":
    main()
