"""How soon a change reaches simulated nodes: by their queues, and by the answers to their reports alone.

    python -m bench.nudges [--nodes 50] [--changes 40] [--period 5] [--quick]

A real web process, Valkey with a user for each node, and the real player, whose nodes report each `--period` seconds. A
partition gets another role, which a node takes up without a new engine; the clock stops when the report of it
is in the database. Then the same once more where no broker is offered to nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench._asking import share
from tests.browser.running import ROOT, Running, eventually, temporary

SUITS = ("by their queues", "by answers alone")
PATIENCE_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--period", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="8 nodes, 6 changes, each 2 s")
    parser.add_argument("--without-broker", action="store_true", help="only the second half: its own process")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.changes, options.period = 8, 6, 2.0
    if options.without_broker:
        print(json.dumps(measure(options, without_broker=True)))
        return
    found = {SUITS[0]: measure(options), SUITS[1]: _other(sys.argv[1:])}
    print(f"{options.nodes} simulated nodes that report each {options.period:g} s, {options.changes} changes of a role")
    for suit, took in found.items():
        print(f"  {suit:<18} p50 {share(took, 0.5) * 1000:7.0f} ms   max {took[-1] * 1000:7.0f} ms")
    names = {"queue": found[SUITS[0]], "answer": found[SUITS[1]]}
    told = {f"{name}_{key}_ms": round(value * 1000) for name, took in names.items() for key, value in _of(took)}
    print("RESULT", json.dumps({"nodes": options.nodes, "period_s": options.period, **told}))


def _of(took: list[float]) -> list[tuple[str, float]]:
    return [("p50", share(took, 0.5)), ("max", took[-1])]


def _other(arguments: list[str]) -> list[float]:
    """Django is set up once in a process."""
    import subprocess

    command = [sys.executable, "-m", "bench.nudges", *arguments, "--without-broker"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    took: list[float] = json.loads(done.stdout.splitlines()[-1])
    return took


def measure(options: argparse.Namespace, *, without_broker: bool = False) -> list[float]:
    """Seconds from the call to the row, sorted."""
    site = Running(temporary("bench-nudges"))
    # Reports as the player sends them: else the server would ask for one a second.
    site.environ |= {"FOREBAY_REPORT_PERIOD_S": str(options.period), "FOREBAY_SILENT_AFTER_S": "60"}
    if without_broker:
        site.environ["FOREBAY_NODE_BROKER_URL"] = ""
    try:
        site.start(gateway=False)
        play = ("simulate_fleet", f"--nodes={options.nodes}", "--gpus=4", "--models=2", f"--period={options.period}")
        site.spawn("fleet", sys.executable, "manage.py", *play, "--load=low", "--url", site.web)
        os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
        import django

        django.setup()
        return sorted(_changes(options.changes, site.home))
    finally:
        site.stop()


def _changes(count: int, home: Path) -> list[float]:
    from django.db.models import F

    from controlplane.audit.services import Actor
    from controlplane.fleet import services as fleet
    from controlplane.fleet.models import Partition

    assigned = Partition.objects.filter(deployment__isnull=False, role="decode").order_by("pk")
    told = assigned.filter(phase="ready", observed_generation=F("generation"))
    eventually(lambda: assigned.exists() and told.count() == assigned.count(), within_s=PATIENCE_S, what="engines")
    took = []
    for place, part in enumerate(list(told)[:count]):
        time.sleep(0.137 * (place % 7))  # not in step with the reports
        began = time.perf_counter()
        fleet.assign(
            part.pk, deployment_id=part.deployment_id, role="prefill", actor=Actor.system("bench"), reason="measured"
        )
        _await(part, began)
        took.append(time.perf_counter() - began)
    assert len(took) == count, f"{len(took)} partitions for {count} changes: more nodes are needed"
    return took


def _await(part: Any, began: float) -> None:
    rows = type(part).objects.filter(pk=part.pk, observed_role="prefill")
    while not rows.exists():
        assert time.perf_counter() - began < PATIENCE_S, f"{part} did not tell of its new role"
        time.sleep(0.002)


if __name__ == "__main__":
    main()
