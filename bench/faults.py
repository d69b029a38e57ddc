"""What clients notice when a part of Forebay is killed with SIGKILL under load: failed and wrong requests per fault.

usage: python -m bench.faults [--quick] [--seconds 20]

2 prefill and 2 decode engines on CPU slots, real ones of the tiny model; eight clients stream completions all the time,
each text is compared with what undisturbed engines say.

--quick: the same Forebay around *stand-in* engines, in under 50 s on an idle machine. It shows what faults do to
requests, not how long a real engine takes to come back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from bench import _standins
from bench._fleet import MODEL, Fleet
from bench._streams import Streams

PARTS = {"agent": "workers run", "broker": "valkey-server", "celery worker": "celery", "web": "uvicorn"}


def kill_engine(fleet: Fleet, role: str) -> str:
    part = fleet.parts(role)[0]
    pid = fleet.stack.engine_pids()[part["id"]]
    os.kill(pid, signal.SIGKILL)
    return f"pid {pid}, {part['name']}"


def kill_part(fleet: Fleet, words: str) -> str:
    process = fleet.stack.part(words)
    process.kill()
    return f"pid {process.pid}"


def faults() -> dict[str, Callable[[Fleet], str]]:
    engines = {f"{role} engine": lambda fleet, role=role: kill_engine(fleet, role) for role in ("decode", "prefill")}
    return engines | {name: lambda fleet, words=words: kill_part(fleet, words) for name, words in PARTS.items()}


async def measure(fleet: Fleet, *, quick: bool, seconds: float) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        # Long answers: some must be under way whenever an engine is killed.
        streams = Streams(fleet.stack.gateway, fleet.stack.key, MODEL, tokens=128 if quick else 256, pause_s=0.5)
        if quick:
            streams.know(_standins.text)
        else:
            await streams.learn(session)
        streams.start(session)
        print(f"  {'killed':<16} {'requests':>8} {'failed':>7} {'wrong':>6} {'continued':>10}  back after")
        try:
            await asyncio.sleep(2)
            for name, kill in faults().items():
                before = streams.tally.copy()
                said = await asyncio.to_thread(kill, fleet)
                began = time.monotonic()
                await asyncio.sleep(2.0 if quick else seconds)
                await asyncio.to_thread(fleet.wait_confirmed)
                back = time.monotonic() - began
                requests, failed, wrong = streams.tally.since(before)
                continued = streams.tally.continued - before.continued
                print(
                    f"  {name:<16} {requests:>8} {failed:>7} {wrong:>6} {continued:>10}  {back:.0f} s ({said})",
                    flush=True,
                )
                table[name] = {"requests": requests, "failed": failed, "wrong": wrong, "continued": continued}
        finally:
            await streams.stop()
        for why, count in sorted(streams.tally.why.items(), key=lambda item: -item[1])[:8]:
            print(f"    {count} x {why}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look after each fault, at least")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        fleet = Fleet(Path(folder), slots=4, standins=options.quick)
        try:
            fleet.up()
            fleet.lay(fleet.node(), ["prefill", "decode", "prefill", "decode"])
            fleet.wait_confirmed()
            table = asyncio.run(measure(fleet, quick=options.quick, seconds=options.seconds))
            engines = fleet.engines()
        finally:
            fleet.down()
    total = {key: sum(row[key] for row in table.values()) for key in ("requests", "failed", "wrong", "continued")}
    print(f"RESULT {json.dumps({'engines': engines, **total, 'faults': table})}")


if __name__ == "__main__":
    main()
