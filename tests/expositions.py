"""What a control plane, a gateway and an agent that have everything to tell expose to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import controlplane.asgi  # noqa: F401 - the figures of its parts are among the web process's
from controlplane.alerts.models import Alert
from controlplane.api.metrics import fleet_text
from controlplane.fleet.models import Partition
from controlplane.fleet.verified import beat
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.trip import Outcome, Trip
from controlplane.scaling.models import LaneLook
from controlplane.telemetry import latest
from controlplane.telemetry.latest import EngineFigures, Latest
from tests.factories import GIB, make_deployment, make_node, make_partition, make_ready
from workers.contract import Device, DeviceKind, DeviceSample, HostSample, NodeReport, Phase, ReplicaStatus, Role
from workers.exposition import Figures
from workers.sleep import SleeperStatus, SleepReport
from workers.uplink import Answer


@dataclass(frozen=True)
class Family:
    """A metric as a reader of docs/metrics.md or a query knows it: counters by their name with _total."""

    name: str
    type: str
    help: str
    labels: frozenset[str]
    values: frozenset[tuple[str, str]]  # of labels, buckets' bounds included
    samples: frozenset[str]  # names that a query may use


def families(text: str) -> dict[str, Family]:
    """Ours only, by name."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if not name.startswith("forebay_") or name.endswith("_created"):
            continue
        assert name not in found, f"{name} is there twice"
        values = {pair for sample in family.samples for pair in sample.labels.items()}
        labels = {label for label, _ in values} - {"le"}
        names = {sample.name for sample in family.samples if not sample.name.endswith("_created")}
        told = (frozenset(labels), frozenset(values), frozenset(names))
        found[name] = Family(name, family.type, family.documentation, *told)
    return found


def control_plane(*, gpus: bool = True) -> dict[str, Family]:
    """Of a fleet made for it. Needs a database and a Valkey."""
    make_fleet()
    return families((generate_latest(REGISTRY) + fleet_text(gpus=gpus)).decode())


def make_fleet() -> Partition:
    """A ready decode engine on one of two GPUs, a decode minimum of two, a living gateway, and an alert that fires."""
    deployment = make_deployment("chat", min_decode=2, overflow=True)
    node = make_node("n1", gpus=1, clock_skew_s=0.25)
    partition = make_ready(make_partition(node, deployment=deployment, role="decode", generation=3))
    latest.keep(figures_of(partition))
    now = timezone.now()
    beat("gw:8001", "0.0.0.0:8001", now)
    about = {"subject_type": "node", "subject_id": node.pk, "subject_name": "n1", "text": "No report."}
    Alert.objects.create(rule="node-silent", severity="critical", state=Alert.State.FIRING, since=now, **about)
    look = {
        "role": "decode",
        "at": now,
        "count": 1,
        "ready": 1,
        "wanted": 2,
        "kind": "bound",
        "why": "its minimum is 2",
    }
    LaneLook.objects.create(deployment=deployment, short=1, **look)
    make_node("n2", gpus=1, last_seen=now - timedelta(hours=1), schedulable=False)
    return partition


def figures_of(partition: Partition, **engine: float | None) -> Latest:
    told = {"running": 3.0, "waiting": 1.0, "kv_usage": 0.5, "prompt_tps": 700.0, "generation_tps": 90.0}
    return Latest(
        node=partition.node_id,
        seen=time.time(),
        devices={
            gpu.uuid: DeviceSample(
                uuid=gpu.uuid, utilization=0.5, memory_used_bytes=8 * GIB, power_w=300.0, temperature_c=50.0
            )
            for gpu in partition.node.gpus.all()
        },
        engines={partition.pk: EngineFigures(**(told | {"kv_in_tps": 600.0} | engine))},
    )


def gateway() -> dict[str, Family]:
    return families(gateway_metrics([a_trip()]).text().decode())


def gateway_metrics(trips: Iterable[Trip]) -> Metrics:
    metrics = Metrics()
    metrics.observe(trips)
    metrics.queued.labels("chat").set(0)
    metrics.waking.labels("chat").set(0)
    metrics.verifications.labels("chat", "ok").inc()
    return metrics


def a_trip() -> Trip:
    return Trip(
        "chat", 1_800_000_000.0, 10.0, deployment="chat", outcome=Outcome.OK, status=200, path="two_step",
        prefill="n1/p0", decode="n1/p1", attempts=2, kv_late=1, queued_s=0.1, held_s=3.1,
        prompt_tokens=70, completion_tokens=5, prefill_began=10.0, prefilled=10.1, first=10.2, last=10.6, ended=10.7,
    )  # fmt: skip


def agent() -> dict[str, Family]:
    figures = Figures()
    figures.reported(a_report(), Answer.OK, 0.004)
    return families(generate_latest(figures.registry).decode())


def a_report(**sample: float | str | None) -> NodeReport:
    told = {
        "utilization": 0.5, "memory_used_bytes": 8 * GIB, "power_w": 300.0, "power_limit_w": 700.0,
        "temperature_c": 50.0, "sm_clock_mhz": 1980.0, "memory_clock_mhz": 2619.0, "ecc_uncorrected": 0,
        "throttle": "power, thermal",
    }  # fmt: skip
    engine = ReplicaStatus(
        partition=4, deployment="chat", role=Role.DECODE, generation=3, phase=Phase.READY, restarts=1,
        memory_bytes=GIB, ready_after_s=21.5, woken_after_s=2.5,
    )  # fmt: skip
    return NodeReport(
        node=1,
        instance="i",
        seq=1,
        at=1_800_000_000.0,
        generation=3,
        agent_version="0.1.0",
        devices=(Device(uuid="GPU-1", index=0, kind=DeviceKind.NVIDIA, name="H100", memory_bytes=80 * GIB),),
        samples=(DeviceSample(**({"uuid": "GPU-1"} | told | sample)),),
        host=HostSample(
            cpu_utilization=0.2, cpu_count=96, memory_bytes=8, memory_used_bytes=3, disk_free_bytes=5 * GIB
        ),
        replicas=(engine,),
        sleep=SleepReport(
            cap_bytes=64 * GIB,
            held_bytes=19 * GIB,
            sleepers=(
                SleeperStatus(partition=4, deployment="far", generation=2, level=1, host_bytes=19 * GIB, gpu_bytes=GIB),
            ),
        ),
    )
