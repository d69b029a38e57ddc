"""What each rule reads off the scene. A reader yields the values that are near its limits, and unknown ones where an
alert is open; of what it does not name, all is well - or nothing is known, where the node is not heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Count, Q

from controlplane.alerts.pool_readers import activation_failing, pool_short, pool_waiting
from controlplane.alerts.scene import Fact, Needs, Scene, Subject, Watch
from controlplane.alerts.slo import itl_burn, ttft_burn
from controlplane.alerts.spending import past_hard, past_soft
from controlplane.audit.models import AuditEvent
from controlplane.domain.alert_rules import KV_WITHIN_S
from controlplane.fleet import brake
from controlplane.fleet.models import GatewayBeat, Gpu, Partition
from controlplane.telemetry.models import EngineSample
from workers.contract import DeviceSample, Phase

Read = Callable[[Scene, Watch], Iterable[Fact]]
DOWN = ("", Phase.STARTING.value, Phase.EXITED.value)
KV_WITHIN = timedelta(seconds=KV_WITHIN_S)
KV_VERBS = ("kv-expired", "kv-transfer-failed")
HARMFUL = ("thermal", "hwslowdown", "hw_slowdown", "brake")  # a power cap alone is how a GPU is run


@dataclass(frozen=True, slots=True)
class Reader:
    read: Read
    needs: Needs = Needs.NOTHING


def _silent(scene: Scene, watch: Watch) -> Iterator[Fact]:
    at = scene.now.timestamp()
    for node in scene.nodes.values():
        age = at - node.last_seen
        if watch.limits.is_near(age) and not node.draining:
            yield Fact(node.subject(), age, f"No report since {_clock(node.last_seen)}.")


def _lost(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for gpu in _gpus(scene, Q(present=False) | Q(health="lost")):
        detail = gpu.detail if gpu.present else "The node reports it no longer."
        yield Fact(gpu.subject, 1.0, detail or "The driver has lost it.")


def _foreign(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for gpu in _gpus(scene, Q(foreign=True, present=True)):
        yield Fact(gpu.subject, 1.0, "A process that is not the agent's is on it.")


def _ecc(scene: Scene, watch: Watch) -> Iterator[Fact]:
    return _sampled(scene, watch, lambda s: s.ecc_uncorrected, "{:.0f} uncorrectable memory errors.")


def _hot(scene: Scene, watch: Watch) -> Iterator[Fact]:
    return _sampled(scene, watch, lambda s: s.temperature_c, "{:.0f} °C.")


def _throttling(scene: Scene, watch: Watch) -> Iterator[Fact]:
    return _sampled(scene, watch, _harm, "Its clocks are held down by {}.", words=lambda s: s.throttle)


def _harm(sample: DeviceSample) -> float:
    reasons = sample.throttle.lower()
    return float(any(word in reasons for word in HARMFUL))


def _crash_looping(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for part in _partitions(scene, Q(restarts__gte=watch.limits.clear, deployment__isnull=False, phase__in=DOWN)):
        if part.confirmed:
            why = f": {part.message}" if part.message else "."
            yield Fact(part.subject, float(part.restarts), f"{part.restarts} starts in a row failed{why}")


def _kv_full(scene: Scene, watch: Watch) -> Iterator[Fact]:
    found = {
        pk: figures.kv_usage
        for node, seen in scene.live.items()
        for pk, figures in seen.engines.items()
        if watch.wants(figures.kv_usage, node)
    }
    for part in _partitions(scene, Q(pk__in=found)):
        value = found[part.subject.id]
        yield Fact(part.subject, value, "" if value is None else f"{100 * value:.0f} % of its KV cache is in use.")


def _kv_transfers(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """By what engines count, and by the events that were recorded of it; the larger, as both may tell of the same."""
    counts = Counter(_kv_counted(scene.now))
    counts |= Counter(_kv_events(scene.now))
    for part in _partitions(scene, Q(pk__in=counts)):
        count = counts[part.subject.id]
        yield Fact(part.subject, float(count), f"{count} times in 5 minutes a KV transfer failed or expired.")


def _kv_counted(now: datetime) -> dict[int, int]:
    bad = Q(kv_failures_ps__gt=0) | Q(kv_expired_ps__gt=0)
    rows = EngineSample.objects.filter(bad, at__gt=now - KV_WITHIN, at__lte=now)
    found: Counter[int] = Counter()
    for pk, failures, expired, covered_s in rows.values_list(
        "partition_id", "kv_failures_ps", "kv_expired_ps", "covered_s"
    ):
        found[pk] += max(1, round(((failures or 0.0) + (expired or 0.0)) * covered_s))
    return found


def _kv_events(now: datetime) -> dict[int, int]:
    events = AuditEvent.objects.filter(
        verb__in=KV_VERBS, subject_type="partition", at__gt=now - KV_WITHIN, at__lte=now
    ).order_by()
    return dict(events.values_list("subject_id").annotate(count=Count("id")))


def _disk(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for pk, seen in scene.live.items():
        free = None if seen.host is None else seen.host.disk_free_bytes
        if watch.wants(free, pk):
            text = "" if free is None else f"{free / 1024**3:,.1f} GiB free where its models lie."
            yield Fact(scene.nodes[pk].subject(), free, text)


def _version(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for node in scene.nodes.values():
        if node.heard and node.agent_version != settings.VERSION:
            value = 1.0 if node.agent_version else None
            yield Fact(node.subject(), value, f"Agent {node.agent_version}, control plane {settings.VERSION}.")


def _skew(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for node in scene.nodes.values():
        skew = None if node.skew_s is None else abs(node.skew_s)
        if node.heard and watch.wants(skew, node.id):
            ahead = "ahead" if (node.skew_s or 0) > 0 else "behind"
            yield Fact(node.subject(), skew, f"Its clock is {_span(skew or 0)} {ahead}.")


def _gateway(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for pk, name, seen_at in GatewayBeat.objects.values_list("pk", "name", "seen_at"):
        age = (scene.now - seen_at).total_seconds()
        if watch.limits.is_near(age):
            subject = Subject("gatewaybeat", pk, name, None, {"gateway": name})
            yield Fact(subject, age, f"Not heard since {_clock(seen_at.timestamp())}.")


def _brake(scene: Scene, watch: Watch) -> Iterator[Fact]:
    found = brake.state(scene.now)
    if found.on:
        yield Fact(Subject("brakerow", brake.ROW, "the brake", None, {}), 1.0, found.text)


READERS: dict[str, Reader] = {
    "node-silent": Reader(_silent),
    "gpu-lost": Reader(_lost, Needs.REPORT),
    "gpu-ecc": Reader(_ecc, Needs.FIGURES),
    "gpu-throttling": Reader(_throttling, Needs.FIGURES),
    "gpu-hot": Reader(_hot, Needs.FIGURES),
    "gpu-foreign": Reader(_foreign, Needs.REPORT),
    "engine-crash-looping": Reader(_crash_looping, Needs.REPORT),
    "slo-ttft": Reader(ttft_burn),
    "slo-itl": Reader(itl_burn),
    "kv-full": Reader(_kv_full, Needs.FIGURES),
    "kv-transfers": Reader(_kv_transfers),
    "pool-short": Reader(pool_short),
    "pool-waiting": Reader(pool_waiting),
    "activation-failing": Reader(activation_failing),
    "disk-low": Reader(_disk, Needs.FIGURES),
    "agent-version": Reader(_version, Needs.REPORT),
    "clock-skew": Reader(_skew, Needs.REPORT),
    "gateway-gone": Reader(_gateway),
    "brake-on": Reader(_brake),
    "budget-soft": Reader(past_soft),
    "budget-hard": Reader(past_hard),
}


@dataclass(frozen=True, slots=True)
class _Gpu:
    subject: Subject
    uuid: str
    present: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Part:
    subject: Subject
    restarts: int
    message: str
    confirmed: bool  # what was observed is of the present generation


def _gpus(scene: Scene, wanted: Q) -> Iterator[_Gpu]:
    """Of nodes that are heard: of the others nothing is known."""
    columns = ("pk", "node_id", "index", "uuid", "present", "health_detail", "partition__deployment__name")
    for pk, node, index, uuid, present, detail, deployment in Gpu.objects.filter(wanted).values_list(*columns):
        if (row := scene.nodes.get(node)) is not None and row.heard:
            yield _Gpu(row.about("gpu", pk, f"gpu{index}", **_served(deployment)), uuid, present, detail)


def _partitions(scene: Scene, wanted: Q) -> Iterator[_Part]:
    columns = (
        "pk", "node_id", "name", "deployment__name", "restarts", "message", "generation", "observed_generation",
    )  # fmt: skip
    for pk, node, name, deployment, restarts, message, wants, has in Partition.objects.filter(wanted).values_list(
        *columns
    ):
        if (row := scene.nodes.get(node)) is not None and row.heard:
            yield _Part(row.about("partition", pk, name, **_served(deployment)), restarts, message, wants == has)


def _served(deployment: str | None) -> dict[str, str]:
    return {"deployment": deployment} if deployment else {}


def _sampled(
    scene: Scene,
    watch: Watch,
    value_of: Callable[[DeviceSample], float | None],
    text: str,
    *,
    words: Callable[[DeviceSample], object] | None = None,
) -> Iterator[Fact]:
    """Devices first by their samples, which need no query; then the rows of those few that matter."""
    found: dict[tuple[int, str], DeviceSample] = {}
    for node, seen in scene.live.items():
        for uuid, sample in seen.devices.items():
            if watch.wants(value_of(sample), node):
                found[node, uuid] = sample
    if not found:
        return
    in_them = Q(node__in={node for node, _ in found}, uuid__in={uuid for _, uuid in found})
    for gpu in _gpus(scene, in_them):
        if sample := found.get((gpu.subject.node or 0, gpu.uuid)):
            value = value_of(sample)
            told = "" if value is None else text.format(words(sample) if words else value)
            yield Fact(gpu.subject, value, told)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
