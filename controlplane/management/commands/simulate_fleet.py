"""Play a fleet that does not exist against this control plane, labelled as such."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from typing import IO, Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.fleet.models import Gpu
from controlplane.management import simulating

APPEAR_S = 120.0


class Command(BaseCommand):
    help = "Play nodes through the real uplink; lines on standard input put faults on them (hot sim-0001/3; clear)"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--nodes", type=int, default=20)
        parser.add_argument("--gpus", type=int, default=8, help="of each node")
        parser.add_argument("--models", type=int, default=4, help="deployments to spread over the fleet")
        parser.add_argument("--url", default=settings.PUBLIC_URL, help="of this control plane's web process")
        parser.add_argument("--load", choices=["low", "day", "burst"], default="day")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--period", type=float, default=1.0, help="seconds between two reports of a node")
        parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: on Ctrl-C")
        parser.add_argument("--serve", action="store_true", help="let engines answer requests, with made-up text")
        parser.add_argument("--mix", action="store_true", help="though the fleet has real nodes")
        parser.add_argument("--remove", action="store_true", help="take away what an earlier play left, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["remove"]:
            self.stdout.write(f"{simulating.remove()} simulated nodes removed")
            return
        if not 1 <= options["nodes"] <= 5000 or not 1 <= options["gpus"] <= 64:
            raise CommandError("Nothing was changed: --nodes is 1 to 5000 and --gpus 1 to 64.")
        if not options["mix"]:
            simulating.require_alone()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the player would go on alone
        seats = simulating.join(options["nodes"])
        player = self._start(options, seats)
        try:
            nodes = [int(str(seat["node"])) for seat in seats]
            self._await_gpus(nodes, options["gpus"], player)
            serving = simulating.furnish(nodes, options["models"], settings.HOME)
            self.stderr.write(f"{len(nodes)} simulated nodes report; {serving} more partitions were assigned")
            # Not before: a fault such as a lost GPU would keep its node from being divided.
            threading.Thread(target=_pass_on, args=(player.stdin,), daemon=True).start()
            player.wait()
        except KeyboardInterrupt:
            pass
        finally:
            player.terminate()
            player.wait()

    def _start(self, options: dict[str, Any], seats: list[dict[str, object]]) -> subprocess.Popen[str]:
        told = [f"--{name}={options[name]}" for name in ("url", "gpus", "load", "seed", "period", "seconds")]
        command = [sys.executable, "-m", "workers.simulated_fleet", *told, *(["--serve"] if options["serve"] else [])]
        player = subprocess.Popen(command, cwd=settings.BASE_DIR, stdin=subprocess.PIPE, text=True)
        assert player.stdin is not None
        player.stdin.write(msgspec.json.encode(seats).decode() + "\n")
        player.stdin.flush()
        return player

    def _await_gpus(self, nodes: list[int], each: int, player: subprocess.Popen[str]) -> None:
        until = time.monotonic() + APPEAR_S
        while Gpu.objects.filter(node__in=nodes).count() < len(nodes) * each:
            if player.poll() is not None or time.monotonic() > until:
                raise CommandError(
                    "The nodes joined, but their reports were not taken. Does the web process run at --url?"
                )
            time.sleep(0.3)


def _pass_on(out: IO[str]) -> None:
    for line in sys.stdin:
        out.write(line)
        out.flush()
