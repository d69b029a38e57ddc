"""What the lists and the live view cost: the real web process on SQLite with simulated nodes of eight GPUs, while the
figures of all of them change each second.

    python -m bench.lists [--nodes 110,1000] [--requests 200] [--quick]

One client asks one thing after another over one kept connection. CPU is that of the web process, less what it takes
without a request.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.browser.running import Running

QUIET_S = 3.0
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="110,1000", help="sizes of the fleet, with commas, growing")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="110 nodes, 60 requests of each kind")
    options = parser.parse_args()
    counts = [110] if options.quick else [int(count) for count in options.nodes.split(",")]
    requests = 60 if options.quick else options.requests
    site = Running(Path(tempfile.mkdtemp(prefix="forebay-bench-lists-")))
    try:
        site.start(gateway=False)
        os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
        for count in counts:
            rows = measure(site, count, requests)
            print_table(count, requests, rows)
            print("RESULT", json.dumps(result(count, rows)), flush=True)
    finally:
        site.stop()


def measure(site: Running, count: int, requests: int) -> list[Row]:
    import django

    django.setup()
    from bench import _rows
    from controlplane.fleet.models import Node

    there = Node.objects.count()
    _rows.make(count - there, first=there)
    nodes = list(Node.objects.defer("spec").order_by("name"))
    token, session = _credentials()
    kinds = [
        ("nodes, a page of 50", "/api/v1/nodes", token),
        ("nodes, all" if count <= 500 else "nodes, a page of 500", f"/api/v1/nodes?page_size={min(count, 500)}", token),
        ("gpus, a page of 50", "/api/v1/gpus", token),
        ("partitions, a page of 50", "/api/v1/partitions", token),
        ("live snapshot", "/api/v1/live", token),
        ("fleet map, the page", "/", session),
    ]
    web = psutil.Process(site.processes["web"].pid)
    with _rows.Reports(nodes), httpx.Client(base_url=site.web, timeout=30) as client:
        for _, path, headers in kinds:
            client.get(path, headers=headers).raise_for_status()
        idle = _idle_cores(web)
        return [{"what": what, **_ask(client, web, path, headers, requests, idle)} for what, path, headers in kinds]


def _credentials() -> tuple[dict[str, str], dict[str, str]]:
    from django.test import Client

    from tests.factories import make_token, make_user

    user = make_user("viewer")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    session = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    return {"Authorization": f"Token {make_token(user)}", "Accept-Encoding": "identity"}, session


def _idle_cores(web: psutil.Process) -> float:
    before = _cpu(web)
    time.sleep(QUIET_S)
    return (_cpu(web) - before) / QUIET_S


def _ask(client: httpx.Client, web: psutil.Process, path: str, headers: dict[str, str], count: int, idle: float) -> Row:
    took: list[float] = []
    size = 0
    before, began = _cpu(web), time.perf_counter()
    for _ in range(count):
        at = time.perf_counter()
        reply = client.get(path, headers=headers)
        took.append((time.perf_counter() - at) * 1000)
        reply.raise_for_status()
        size = len(reply.content)
    spent = _cpu(web) - before - idle * (time.perf_counter() - began)
    took.sort()
    return {
        "p50_ms": _at(took, 0.5),
        "p99_ms": _at(took, 0.99),
        "max_ms": took[-1],
        "cpu_ms": max(0.0, spent) * 1000 / count,
        "kb": size / 1000,
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def result(count: int, rows: list[Row]) -> dict[str, Any]:
    """`list` is the page of 50 nodes, `whole_list` all of them (500 at the most), `map` the snapshot behind the map."""
    first = {"list": 0, "whole_list": 1, "gpus": 2, "partitions": 3, "map": 4, "page": 5}
    names = ("p50_ms", "p99_ms", "max_ms", "cpu_ms")
    figures = {f"{of}_{name}": round(rows[place][name], 2) for of, place in first.items() for name in names}
    return {"nodes": count, **figures}


def print_table(count: int, requests: int, rows: list[Row]) -> None:
    print(f"{count} simulated nodes, {count * 8} GPUs; {requests} requests of each kind, one after another")
    print(f"  {'':28}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'CPU ms':>9}{'kB':>9}")
    for row in rows:
        figures = "".join(f"{row[name]:9.1f}" for name in ("p50_ms", "p99_ms", "max_ms", "cpu_ms", "kb"))
        print(f"  {row['what']:28}{figures}")


if __name__ == "__main__":
    main()
