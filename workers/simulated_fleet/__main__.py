"""Plays the nodes that the first line of standard input names, as JSON; each later line is a fault, or ends one.

usage: python -m workers.simulated_fleet --url http://127.0.0.1:8000 [--gpus 8] [--load low|day|burst] ...
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import threading
import time
from dataclasses import asdict
from urllib.parse import urlsplit

import msgspec

from workers.simulated_fleet import load
from workers.simulated_fleet.faults import BadFault, change
from workers.simulated_fleet.host import Curve
from workers.simulated_fleet.player import Fleet, Seat, Told, play
from workers.simulated_fleet.serving import serve

SAY_EVERY_S = 5.0


def main() -> None:
    options = _parser().parse_args()
    seats = msgspec.json.decode(sys.stdin.readline(), type=list[Seat])
    fleet = Fleet(seats, gpus=options.gpus, curve=Curve(options.load, options.seed), period_s=options.period)
    url, over, told = urlsplit(options.url), threading.Event(), Told()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: over.set())
    for work in (lambda: _hear(fleet), lambda: _say(told, over)):
        threading.Thread(target=work, daemon=True).start()
    ends_at = time.monotonic() + options.seconds if options.seconds else float("inf")

    async def playing() -> None:
        if options.serve:
            _server, port = await serve(fleet.find, "127.0.0.1")
            fleet.answer_at(f"http://127.0.0.1:{port}")
        await play(
            fleet,
            seats,
            host=url.hostname or "127.0.0.1",
            port=url.port or 80,
            is_over=lambda: over.is_set() or time.monotonic() >= ends_at,
            told=told,
        )

    asyncio.run(playing())
    print(msgspec.json.encode(asdict(told)).decode(), flush=True)


def _hear(fleet: Fleet) -> None:
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            fleet.put(change(fleet.faults, line, fleet.hosts))
        except BadFault as error:
            print(error, file=sys.stderr, flush=True)


def _say(told: Told, over: threading.Event) -> None:
    while not over.wait(SAY_EVERY_S):
        line = ", ".join(f"{name} {count}" for name, count in asdict(told).items())
        print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.simulated_fleet", description=__doc__)
    parser.add_argument("--url", required=True, help="of the control plane, http")
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--load", choices=load.SHAPES, default="day")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two reports of a node")
    parser.add_argument("--serve", action="store_true", help="answer requests that a gateway sends to the engines")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: on SIGTERM")
    return parser


if __name__ == "__main__":
    main()
