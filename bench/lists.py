"""What the lists and the live view cost: the real web process on SQLite with simulated nodes of eight GPUs, while the
figures of all of them change each second.

    python -m bench.lists [--nodes 110,1000] [--requests 200] [--gpustack FOLDER/bin/gpustack] [--quick]

One client asks one thing after another over one kept connection. CPU is that of the web process, less what it takes
without a request. With --gpustack (2.3.0, as root) its list of as many workers as the first size is asked in the same
run by the same client; its CPU is that of its server, without its PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bench._asking import ask
from tests.browser.running import Running, temporary

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="110,1000", help="sizes of the fleet, with commas, growing")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--gpustack", type=Path, help="its program, to be measured beside ours")
    parser.add_argument("--quick", action="store_true", help="110 nodes, 60 requests of each kind")
    options = parser.parse_args()
    counts = [110] if options.quick else [int(count) for count in options.nodes.split(",")]
    requests = 60 if options.quick else options.requests
    site = Running(temporary("bench-lists"))
    try:
        site.start(gateway=False)
        os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
        for count in counts:
            rows = measure(site, count, requests)
            print_table(count, requests, rows)
            peer = beside(options.gpustack, count, requests) if count == counts[0] else []
            print("".join(line(row) for row in peer), end="")
            print("RESULT", json.dumps(result(count, rows) | peer_result(peer)), flush=True)
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
        ("metrics", "/metrics", token),
    ]
    web = site.processes["web"].pid
    with _rows.Reports(nodes):
        return [{"what": what, **ask(f"{site.web}{path}", requests, web, headers)} for what, path, headers in kinds]


def beside(program: Path | None, count: int, requests: int) -> list[Row]:
    if program is None:
        print("GPUStack is left out: give its program with --gpustack (pip install gpustack==2.3.0)")
        return []
    from bench._gpustack import Gpustack

    home = temporary("bench-gpustack")
    with Gpustack(program, home, count) as peer:
        return [peer.ask(requests)]


def _credentials() -> tuple[dict[str, str], dict[str, str]]:
    from django.test import Client

    from tests.factories import make_token, make_user

    user = make_user("viewer")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    session = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    return {"Authorization": f"Token {make_token(user)}", "Accept-Encoding": "identity"}, session


def result(count: int, rows: list[Row]) -> dict[str, Any]:
    """`list` is the page of 50 nodes, `whole_list` all of them (500 at the most), `map` the snapshot behind the map."""
    of = {"list": 0, "whole_list": 1, "gpus": 2, "partitions": 3, "map": 4, "page": 5, "metrics": 6}
    names = ("p50_ms", "p99_ms", "max_ms", "cpu_ms")
    there = {key: rows[place] for key, place in of.items() if place < len(rows)}
    figures = {f"{key}_{name}": round(row[name], 2) for key, row in there.items() for name in names}
    return {"nodes": count, **figures}


def peer_result(rows: list[Row]) -> dict[str, float]:
    names = ("p50_ms", "p99_ms", "max_ms", "cpu_ms")
    return {f"gpustack_{name}": round(row[name], 2) for row in rows for name in names}


def print_table(count: int, requests: int, rows: list[Row]) -> None:
    print(f"{count} simulated nodes, {count * 8} GPUs; {requests} requests of each kind, one after another")
    print(f"  {'':28}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'CPU ms':>9}{'kB':>9}")
    print("".join(line(row) for row in rows), end="", flush=True)


def line(row: Row) -> str:
    figures = "".join(f"{row[name]:9.1f}" for name in ("p50_ms", "p99_ms", "max_ms", "cpu_ms", "kb"))
    return f"  {row['what']:28}{figures}\n"


if __name__ == "__main__":
    main()
