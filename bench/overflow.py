"""What it is worth to be lent a slot: a dedicated deployment is asked for more than its one engine takes, for a while,
once without overflow and once with it, through the whole stack. The engines are stand-ins that take a while to start
and `--each` requests at once; they invent their text, and their speed is given, not measured.

    python -m bench.overflow [--seconds 90] [--over 1.6] [--each 4] [--start 4] [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from bench import _standins
from tests.e2e.stack import Stack, eventually
from tests.standin_vllm import ITL_S

SLOTS, TOKENS, KEEP_ALIVE_S = 3, 40, 20
PROMPT = "What holds water ready in front of a turbine?"


@dataclass(frozen=True, slots=True)
class Answer:
    at: float  # since the first was sent
    took_s: float
    status: int
    path: str


@dataclass(frozen=True, slots=True)
class Run:
    answers: list[Answer]
    asked_s: float | None  # until the pool was asked, since the first request
    ready_s: float | None  # until the slot's engine was ready, since then
    lent_s: float  # that the deployment had the slot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--over", type=float, default=1.6, help="times what its own engine serves")
    parser.add_argument("--each", type=int, default=4, help="requests that an engine takes at once")
    parser.add_argument("--start", type=float, default=4.0, help="seconds that an engine's start takes longer")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="7 s of load")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.start = 7.0, 2.0
    seconds, keep_alive_s = options.seconds, 5 if options.quick else KEEP_ALIVE_S
    rate = options.over * options.each / (TOKENS * ITL_S)
    with tempfile.TemporaryDirectory(prefix="forebay-overflow-") as folder:
        stack = Stack(Path(folder) / "home", demo="none", slots=SLOTS)
        _standins.settle(stack, "tiny", Path(folder))
        _slowly(Path(folder) / "vllm", options.start)
        stack.environ |= {"FOREBAY_QUALIFY": "never"} | ({"FOREBAY_POOL_MIN_RESIDENCE_S": "3"} if options.quick else {})
        try:
            stack.up()
            deployment = furnish(stack, options.each, keep_alive_s)
            times = arrivals(rate, seconds, options.seed)
            without = play(stack, deployment, times, overflow=False)
            with_it = play(stack, deployment, times, overflow=True)
        finally:
            stack.clean_up()
    report(without, with_it, rate, options.over, keep_alive_s)


def furnish(stack: Stack, each: int, keep_alive_s: int) -> int:
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="the node")[0]["id"]
    stack.rest("POST", f"/nodes/{node}/split", json={"groups": [[slot] for slot in range(SLOTS)]})
    own, *slots = stack.partitions()
    for row in slots:
        stack.rest("PATCH", f"/partitions/{row['id']}", json={"pool": True})
    model = stack.rest("POST", "/models", json={"name": "tiny", "source": str(stack.home / "models" / "tiny")})["id"]
    body = {"name": "steady", "model": model, "aggregated_max_requests": each, "keep_alive_s": keep_alive_s}
    deployment = stack.rest("POST", "/deployments", json=body)["id"]
    stack.rest("POST", f"/partitions/{own['id']}/assign", json={"deployment": deployment, "role": "aggregated"})
    with httpx.Client(timeout=30) as client:
        eventually(lambda: send(stack, client).status_code == 200, within_s=90, what="its own engine serves")
    return int(deployment)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """A Poisson process: the same for both runs."""
    draw, at, found = random.Random(seed), 0.0, []
    while (at := at + draw.expovariate(rate)) < seconds:
        found.append(at)
    return found


def play(stack: Stack, deployment: int, times: Sequence[float], *, overflow: bool) -> Run:
    stack.rest("PATCH", f"/deployments/{deployment}", json={"overflow": overflow})
    time.sleep(2.0)  # gateways re-read their table each second
    lent = _Lent(stack)
    lent.start()
    began = time.monotonic()
    wall = time.time()

    def ask(at: float) -> Answer:
        time.sleep(max(0.0, began + at - time.monotonic()))
        sent = time.monotonic()
        answer = send(stack, client)
        return Answer(at, time.monotonic() - sent, answer.status_code, answer.headers.get("x-forebay-path", ""))

    limits = httpx.Limits(max_connections=None)
    with httpx.Client(timeout=120, limits=limits) as client, ThreadPoolExecutor(len(times)) as many:
        answers = list(many.map(ask, times))
    if overflow:
        eventually(lambda: not lent.now, within_s=KEEP_ALIVE_S + 30, what="the slot is taken back")
    lent.ended.set()
    lent.join()
    rows = stack.rest("GET", "/activations")["results"]
    if not rows:
        return Run(answers, None, None, lent.seconds)
    asked, ready = (_unix(rows[-1][key]) for key in ("asked_at", "ended_at"))
    return Run(answers, asked - wall, ready - asked, lent.seconds)


class _Lent(threading.Thread):
    """For how long a slot is lent."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.stack, self.seconds, self.now, self.ended = stack, 0.0, False, threading.Event()

    def run(self) -> None:
        at = time.monotonic()
        while not self.ended.wait(0.5):
            before, at = at, time.monotonic()
            self.now = any(row["overflow"] for row in self.stack.partitions())
            self.seconds += (at - before) if self.now else 0.0


def send(stack: Stack, client: httpx.Client) -> httpx.Response:
    body = {"model": "steady", "prompt": PROMPT, "max_tokens": TOKENS}
    headers = {"Authorization": f"Bearer {stack.key}"}
    return client.post(f"{stack.gateway}/v1/completions", headers=headers, json=body)


def report(without: Run, with_it: Run, rate: float, over: float, keep_alive_s: int) -> None:
    print(f"{rate:.1f} requests a second, {over:g} times what its own engine serves; the engines are stand-ins")
    print(
        f"{'':18}{'asked':>7}{'answered':>10}{'refused':>9}{'p50, s':>9}{'p95, s':>9}{'max, s':>9}{'by the slot':>13}"
    )
    for name, run in (("without overflow", without), ("with overflow", with_it)):
        good = sorted(one.took_s for one in run.answers if one.status == 200)
        paths = Counter(one.path for one in run.answers)
        refused = len(run.answers) - len(good)
        figures = "".join(f"{_share(good, share):9.2f}" for share in (0.5, 0.95, 1.0))
        print(f"{name:18}{len(run.answers):7}{len(good):10}{refused:9}{figures}{paths['overflow']:13}")
    asked, ready = with_it.asked_s or 0.0, with_it.ready_s or 0.0
    print(f"the pool was asked after {asked:.1f} s; the slot was ready {ready:.1f} s later, and lent for "
          f"{with_it.lent_s:.0f} s, of which {keep_alive_s} s are its keep-alive")  # fmt: skip
    good = [sorted(one.took_s for one in run.answers if one.status == 200) for run in (without, with_it)]
    figures = {
        "refused_without": len(without.answers) - len(good[0]),
        "refused_with": len(with_it.answers) - len(good[1]),
        "p95_s_without": _share(good[0], 0.95),
        "p95_s_with": _share(good[1], 0.95),
        "ratio": _share(good[0], 0.95) / max(1e-9, _share(good[1], 0.95)),
        "asked_s": asked,
        "ready_s": ready,
        "lent_s": with_it.lent_s,
    }
    print("RESULT", json.dumps({key: round(value, 2) for key, value in figures.items()}), flush=True)


def _share(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def _slowly(program: Path, seconds: float) -> None:
    lines = program.read_text().splitlines()
    program.write_text("\n".join([lines[0], f'[ "$1" = serve ] && sleep {seconds}', *lines[1:]]) + "\n")


def _unix(stamp: Any) -> float:
    return datetime.fromisoformat(str(stamp)).timestamp()


if __name__ == "__main__":
    main()
