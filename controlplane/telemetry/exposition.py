"""The fleet as Prometheus reads it: sums over the fleet, by deployment and role, and one age per node. Of what nobody
knows there is no sample, never a zero. Figures of single GPUs only where they are asked for: see docs/metrics.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from controlplane.domain.types import NodeStatus, PartitionStatus
from controlplane.fleet.models import Deployment
from controlplane.telemetry.columns import known
from controlplane.telemetry.latest import EngineFigures
from controlplane.telemetry.node_object import LiveNode
from controlplane.telemetry.picture import Fleet
from workers.contract import DeviceSample, Phase, Role

SERVED = ["deployment", "role"]
GPU = ["node", "gpu", "uuid", *SERVED]
GPU_STATES = ("assigned", "idle", "degraded", "lost")
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
LOST = str(PartitionStatus.LOST)
Key = tuple[str, str]  # deployment and role
# Sample's field -> name and help
ENGINE_SUMS = {
    "running": ("forebay_engine_requests_running", "Requests that engines work on"),
    "waiting": ("forebay_engine_requests_waiting", "Requests that wait in engines"),
    "prompt_tps": ("forebay_engine_prompt_tokens_per_second", "Prompt tokens that engines take in each second"),
    "generation_tps": ("forebay_engine_generation_tokens_per_second", "Tokens that engines generate each second"),
    "kv_in_tps": ("forebay_engine_kv_received_tokens_per_second", "Prompt tokens a second whose KV came by transfer"),
}
GPU_FIGURES = {
    "utilization": ("forebay_gpu_utilization_ratio", "Share of time in which the GPU worked, 0 to 1"),
    "memory_used_bytes": ("forebay_gpu_memory_used_bytes", "Memory in use on the GPU"),
    "power_w": ("forebay_gpu_power_watts", "Power that the GPU draws"),
    "temperature_c": ("forebay_gpu_temperature_celsius", "Temperature of the GPU"),
}


def text(gauges: Iterable[Metric]) -> bytes:
    """As prometheus_client writes gauges whose names are plain, in half the time: a fleet has thousands of
    samples."""
    lines: list[str] = []
    for family in gauges:
        assert family.type == "gauge", f"{family.name} is no gauge"
        about = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {family.name} {about}\n# TYPE {family.name} gauge\n")
        for sample in family.samples:
            told = ",".join([f'{name}="{value.translate(_ESCAPED)}"' for name, value in sorted(sample.labels.items())])
            lines.append(f"{sample.name}{{{told}}} " if told else f"{sample.name} ")
            lines.append(f"{floatToGoString(sample.value)}\n")
    return "".join(lines).encode()


def families(fleet: Fleet, *, gpus: bool = False) -> Iterator[Metric]:
    """`gpus`: with the figures of each GPU."""
    nodes = fleet.nodes.values()
    yield from _nodes(nodes, fleet.at)
    yield from _gpu_states(nodes)
    yield from _replicas(nodes)
    yield from _engines(nodes)
    yield from _gpu_sums(nodes)
    if gpus:
        yield from _each_gpu(nodes)
    yield _gauge(
        "forebay_brake_engaged",
        "1 while nothing is rescheduled by itself, since many nodes are silent",
        [],
        {(): float(fleet.brake.on)},
    )


def _nodes(nodes: Iterable[LiveNode], at: float) -> Iterator[Metric]:
    by_status = Counter(node.shape.facts["status"] for node in nodes)
    counts = {(str(status),): float(by_status[str(status)]) for status in NodeStatus}
    yield _gauge("forebay_nodes", "Nodes by status", ["status"], counts)
    seen = {(node.shape.facts["name"],): max(0.0, at - node.last_seen) for node in nodes if node.last_seen is not None}
    yield _gauge("forebay_node_report_age_seconds", "Time since the node's last report", ["node"], seen)
    skews = {(node.shape.facts["name"],): node.skew_s for node in nodes if node.skew_s is not None}
    yield _gauge("forebay_node_clock_skew_seconds", "The node's clock minus the server's", ["node"], skews)


def _gpu_states(nodes: Iterable[LiveNode]) -> Iterator[Metric]:
    counts: Counter[tuple[str, ...]] = Counter()
    flagged: Counter[str] = Counter()
    for node in nodes:
        assigned = {part["id"] for part in node.shape.partitions if part["deployment"]}
        for gpu in node.shape.gpus:
            counts[gpu["kind"], _state(gpu, assigned)] += 1
            flagged[gpu["kind"]] += bool(gpu["flag"])
    kinds = sorted({kind for kind, _ in counts})
    told = {(kind, state): float(counts[kind, state]) for kind in kinds for state in GPU_STATES}
    yield _gauge("forebay_gpus", "GPUs and CPU slots by state; each is in one", ["kind", "state"], told)
    kept_out = {(kind,): float(flagged[kind]) for kind in kinds}
    yield _gauge("forebay_gpus_flagged", "GPUs that were measured and are kept out of placement", ["kind"], kept_out)


def _state(gpu: dict[str, Any], assigned: set[int]) -> str:
    if gpu["health"] == "lost" or not gpu["present"]:
        return "lost"
    if gpu["health"] != "ok":
        return "degraded"
    return "assigned" if gpu["partition"] in assigned else "idle"


def _replicas(nodes: Iterable[LiveNode]) -> Iterator[Metric]:
    """Roles without a partition have zeros where a minimum is set: that is when somebody must hear of it."""
    least = _minimums()
    wanted: dict[Key, float] = dict.fromkeys(least, 0.0)
    ready, confirmed = dict(wanted), dict(wanted)
    by_status: Counter[str] = Counter()
    for node in nodes:
        for part in node.shape.partitions:
            by_status[part["status"]] += 1
            if (key := _key(part)) is None or part["overflow"]:
                continue  # what the pool lends is told by forebay_pool_lent_slots
            is_ready = part["phase"] == Phase.READY and part["status"] != LOST
            wanted[key] = wanted.get(key, 0.0) + 1
            ready[key] = ready.get(key, 0.0) + is_ready
            confirmed[key] = confirmed.get(key, 0.0) + (is_ready and part["confirmed"])
    counts = {(str(status),): float(by_status[str(status)]) for status in PartitionStatus}
    yield _gauge("forebay_partitions", "Partitions by status", ["status"], counts)
    yield _gauge(
        "forebay_replicas_wanted",
        "Partitions assigned to the deployment in that role, without what the pool lends it",
        SERVED,
        wanted,
    )
    yield _gauge("forebay_replicas_ready", "Those whose engine is ready, on a node that is heard", SERVED, ready)
    yield _gauge("forebay_replicas_confirmed", "Those whose ready engine is what is wanted now", SERVED, confirmed)
    yield _gauge("forebay_replicas_minimum", "The least that the deployment shall have", SERVED, least)


def _minimums() -> dict[Key, float]:
    rows = Deployment.objects.order_by("name").values("name", *(f"min_{role}" for role in Role))
    return {(row["name"], str(role)): float(row[f"min_{role}"]) for row in rows for role in Role if row[f"min_{role}"]}


def _engines(nodes: Iterable[LiveNode]) -> Iterator[Metric]:
    """Of ready engines on nodes that are heard."""
    sums: dict[str, dict[Key, float]] = {field: {} for field in ENGINE_SUMS}
    usage: defaultdict[Key, list[float]] = defaultdict(list)
    unknown: dict[Key, float] = {}
    for key, engine in _ready_engines(nodes):
        unknown[key] = unknown.get(key, 0.0) + (engine is None or engine.running is None)
        for field, by_key in sums.items():
            if (value := known(getattr(engine, field, None))) is not None:
                by_key[key] = by_key.get(key, 0.0) + value
        if engine is not None and (used := known(engine.kv_usage)) is not None:
            usage[key].append(used)
    yield _gauge("forebay_engines_unknown", "Ready engines whose load is not known", SERVED, unknown)
    for field, (name, text) in ENGINE_SUMS.items():
        yield _gauge(name, text, SERVED, sums[field])
    mean = {key: sum(values) / len(values) for key, values in usage.items()}
    yield _gauge("forebay_engine_kv_cache_usage_ratio", "Mean share of the KV cache in use, 0 to 1", SERVED, mean)
    most = {key: max(values) for key, values in usage.items()}
    yield _gauge("forebay_engine_kv_cache_usage_max_ratio", "The same of the fullest engine", SERVED, most)


def _ready_engines(nodes: Iterable[LiveNode]) -> Iterator[tuple[Key, EngineFigures | None]]:
    for node in nodes:
        figures = node.figures.engines if node.figures else {}
        for part in node.shape.partitions:
            if part["status"] == "ready" and (key := _key(part)):
                yield key, figures.get(part["id"])


def _gpu_sums(nodes: Iterable[LiveNode]) -> Iterator[Metric]:
    """By what the GPU is assigned to; both labels are empty for those that are not."""
    busy: defaultdict[Key, list[float]] = defaultdict(list)
    used: dict[Key, float] = {}
    power: dict[Key, float] = {}
    for _, _, key, sample in _sampled(nodes):
        if (value := known(sample.utilization)) is not None:
            busy[key].append(value)
        if sample.memory_used_bytes is not None:
            used[key] = used.get(key, 0.0) + sample.memory_used_bytes
        if (watts := known(sample.power_w)) is not None:
            power[key] = power.get(key, 0.0) + watts
    mean = {key: sum(values) / len(values) for key, values in busy.items()}
    yield _gauge("forebay_gpus_utilization_ratio", "Mean utilization of GPUs, 0 to 1", SERVED, mean)
    yield _gauge("forebay_gpus_memory_used_bytes", "Memory in use on GPUs", SERVED, used)
    yield _gauge("forebay_gpus_power_watts", "Power that GPUs draw", SERVED, power)


def _each_gpu(nodes: Iterable[LiveNode]) -> Iterator[Metric]:
    told: dict[str, dict[tuple[str, ...], float]] = {field: {} for field in GPU_FIGURES}
    for node, gpu, key, sample in _sampled(nodes):
        labels = (node.shape.facts["name"], str(gpu["index"]), gpu["uuid"], *key)
        for field, values in told.items():
            if (value := known(getattr(sample, field))) is not None:
                values[labels] = value
    for field, (name, text) in GPU_FIGURES.items():
        yield _gauge(name, text, GPU, told[field])


def _sampled(nodes: Iterable[LiveNode]) -> Iterator[tuple[LiveNode, dict[str, Any], Key, DeviceSample]]:
    """GPUs of nodes that are heard, with their last sample."""
    quiet = (NodeStatus.SILENT, NodeStatus.NEVER_SEEN)
    for node in nodes:
        if node.figures is None or node.shape.facts["status"] in quiet:
            continue
        keys = {part["id"]: _key(part) for part in node.shape.partitions}
        for gpu in node.shape.gpus:
            if (sample := node.figures.devices.get(gpu["uuid"])) is not None:
                yield node, gpu, keys.get(gpu["partition"]) or ("", ""), sample


def _key(partition: dict[str, Any]) -> Key | None:
    deployment = partition["deployment"]
    return (deployment["name"], partition["role"]) if deployment else None


def _gauge(name: str, text: str, labels: list[str], values: dict[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
