"""What a whole fleet's reports cost the control plane, and how old a sample is when it reaches a browser.

usage: python -m bench.fleet [--quick] [--nodes N] [--gpus G] [--seconds S] [--watchers W]

The real web process (uvicorn, its recorder, SQLite) and the real Valkey take the reports of simulated nodes over HTTP,
one kept connection a node, one report a second, spread evenly; watchers look at the fleet map over real websockets. The
players are processes of their own, and not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import _players, _site
from bench._load import cpu_seconds

WATCHED = 60  # nodes in sight of one browser


@dataclass(slots=True)
class Spent:
    at: float
    web_s: float
    valkey_s: float
    rss_mb: float
    valkey_mb: float

    @classmethod
    def now(cls, site: _site.Site) -> Spent:
        web_s, valkey_s = cpu_seconds(site.web_pid), cpu_seconds(site.valkey_pid)
        valkey = psutil.Process(site.valkey_pid).memory_info().rss
        return cls(time.monotonic(), web_s, valkey_s, site.rss_bytes() / 2**20, valkey / 2**20)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="under 50 s: 200 nodes for 15 s")
    flags.add_argument("--nodes", type=int, default=1000)
    flags.add_argument("--gpus", type=int, default=8)
    flags.add_argument("--seconds", type=float, default=300.0)
    flags.add_argument("--watchers", type=int, default=20)
    flags.add_argument("--processes", type=int, default=1, help="web processes that share the port")
    options = flags.parse_args()
    if options.quick:
        options.nodes, options.seconds = min(options.nodes, 200), 15.0
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home, _site.Site(Path(home)) as site:
        nodes = site.furnish(options.nodes, options.gpus)
        site.start(options.processes)
        print(f"{options.nodes} nodes of {options.gpus} GPUs, {options.watchers} watchers; warming up", flush=True)
        result = run(site, nodes, options)
    print("RESULT " + json.dumps(result))


def run(site: _site.Site, nodes: list[_site.Node], options: argparse.Namespace) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    taken, settled, end = context.Event(), context.Event(), context.Event()
    reports, ages = context.Queue(), context.Queue()
    ids = [node.id for node in nodes]
    began = time.monotonic()
    playing = (site.web_port, nodes, taken, settled, end, reports)
    player = context.Process(
        target=_players.report, args=playing, daemon=True
    )  # ends with us, however that comes about
    player.start()
    if not taken.wait(180):
        raise SystemExit("the first reports of all nodes were not taken within 180 s")
    print(f"the first reports of all nodes, which write everything, were taken in {time.monotonic() - began:.0f} s")
    if not settled.wait(180):
        raise SystemExit("the nodes may not yet report each second, 180 s after their first reports")
    print(f"all report each second after {time.monotonic() - began:.0f} s", flush=True)
    watching = (site.web_port, site.token, ids, options.watchers, WATCHED, end, ages)
    watchers = context.Process(target=_players.watch, args=watching, daemon=True)
    watchers.start()
    time.sleep(5)
    marks = [Spent.now(site)]
    start = time.time()
    for _ in range(5):
        time.sleep(options.seconds / 5)
        marks.append(Spent.now(site))
    ended = time.time()
    end.set()
    told, seen = reports.get(timeout=120), ages.get(timeout=120)
    player.join(), watchers.join()
    return _table(site, marks, told, [age for at, age in seen if start <= at <= ended], options, (start, ended))


def _table(
    site: _site.Site,
    marks: list[Spent],
    told: _players.Told,
    ages: list[float],
    options: argparse.Namespace,
    between: tuple[float, float],
) -> dict[str, float]:
    first, last = marks[0], marks[-1]
    elapsed = last.at - first.at
    count = {name: _within(getattr(told, name), between) for name in ("sent", "answered", "refused", "slow", "held")}
    sent = count["answered"]
    cpu_s = last.web_s - first.web_s + last.valkey_s - first.valkey_s
    lost = count["sent"] - count["answered"] + site.missing_samples(between, options.nodes * options.gpus)
    ages = sorted(ages)
    p50, p99 = (ages[min(len(ages) - 1, int(share * len(ages)))] if ages else float("nan") for share in (0.5, 0.99))
    rows = {"web, with its recorder": (first.web_s, last.web_s), "Valkey": (first.valkey_s, last.valkey_s)}
    print(f"{'':<26}{'cores':>8}{'ms/report':>11}")
    for name, (one, two) in rows.items():
        print(f"{name:<26}{(two - one) / elapsed:>8.3f}{(two - one) / sent * 1e3:>11.3f}")
    print(
        f"reports answered {sent} in {elapsed:.0f} s, refused {count['refused']}; not sent since the one before was not"
    )
    print(f"answered yet {count['slow']}, since the server asked for fewer {count['held']}")
    print(f"a sample's age at a browser: p50 {p50:.2f} s, p99 {p99:.2f} s, of {len(ages)}")
    print("RSS of web over the run, MB: " + ", ".join(f"{mark.rss_mb:.0f}" for mark in marks))
    print("RSS of Valkey over the run, MB: " + ", ".join(f"{mark.valkey_mb:.1f}" for mark in marks))
    return {
        "nodes": options.nodes,
        "reports": sent,
        "lost": lost,
        "cpu_cores": round(cpu_s / elapsed, 3),
        "cpu_ms_per_report": round(cpu_s / sent * 1e3, 3),
        "age_p50_s": round(p50, 2),
        "age_p99_s": round(p99, 2),
        "rss_mb": round(last.rss_mb),
    }


def _within(moments: list[float], between: tuple[float, float]) -> int:
    return sum(1 for at in moments if between[0] <= at <= between[1])


if __name__ == "__main__":
    main()
