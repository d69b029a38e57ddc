"""Samples over time for a chart: means per step, null where nothing is known, and the changes that explain them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db.models import Avg, Func, IntegerField, Model, Q

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.telemetry.models import EngineSample, GpuSample

MAX_POINTS = 600
MAX_MARKS = 100
SETTLE_S = 3.0  # the newest window may not be written yet: no gap is shown for it


@dataclass(frozen=True, slots=True)
class Metric:
    unit: str
    field: str
    of: type[Model]


METRICS = {
    "utilization": Metric("ratio", "utilization", GpuSample),
    "memory": Metric("bytes", "memory_used_bytes", GpuSample),
    "power": Metric("W", "power_w", GpuSample),
    "temperature": Metric("°C", "temperature_c", GpuSample),
    "kv_usage": Metric("ratio", "kv_usage", EngineSample),
    "generation_tps": Metric("tokens/s", "generation_tps", EngineSample),
    "prompt_tps": Metric("tokens/s", "prompt_tps", EngineSample),
    "running": Metric("requests", "running", EngineSample),
    "waiting": Metric("requests", "waiting", EngineSample),
    "ttft_ms": Metric("ms", "ttft_ms", EngineSample),
    "itl_ms": Metric("ms", "itl_ms", EngineSample),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the samples are of: the GPUs and partitions to draw, and whose changes to mark."""

    gpus: tuple[Gpu, ...]
    partitions: tuple[Partition, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) in unix seconds, on whole steps."""

    start: int
    end: int
    step: int

    @property
    def points(self) -> range:
        return range(self.start, self.end, self.step)


class Epoch(Func):
    """Whole unix seconds of a time column."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # The percent sign is unquoted twice: by this template, and when the parameters are filled in.
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="CAST(EXTRACT(EPOCH FROM %(expressions)s) AS BIGINT)", **extra
        )


def of_node(node: Node) -> Subject:
    return Subject(tuple(node.gpus.order_by("index")), tuple(node.partitions.order_by("name")), (node.pk,))


def of_gpu(gpu: Gpu) -> Subject:
    return Subject((gpu,), (gpu.partition,) if gpu.partition else (), (gpu.node_id,))


def of_partition(partition: Partition) -> Subject:
    return Subject(tuple(partition.gpus.order_by("index")), (partition,), (partition.node_id,))


def span(start: float, end: float, step: int | None, now: float) -> Span:
    """Widen `step` until MAX_POINTS are enough, and end where samples can be by now."""
    every = settings.SAMPLE_EVERY_S
    least = math.ceil((end - start) / MAX_POINTS)
    step = math.ceil(max(step or every, least, every) / every) * every
    newest = min(math.ceil(end) - 1, now - SETTLE_S - every)  # the last second whose window can be there
    first = int(start // step) * step
    last = math.floor(newest / step) * step + step
    return Span(first, max(first, last), step)


def read(subject: Subject, metric: str, over: Span) -> dict[str, Any]:
    """What GET /api/v1/samples gives."""
    measured = METRICS[metric]
    if measured.of is GpuSample:
        owners = {gpu.pk: f"GPU {gpu.index}" if gpu.kind != "cpu" else f"CPU slot {gpu.index}" for gpu in subject.gpus}
    else:
        owners = {partition.pk: partition.name for partition in subject.partitions}
    means = _means(measured, owners, over)
    return {
        "metric": metric,
        "unit": measured.unit,
        "from": over.start,
        "to": over.end,
        "step": over.step,
        "series": [
            {"id": pk, "label": label, "points": [[at, means.get((pk, at))] for at in over.points]}
            for pk, label in owners.items()
        ],
        "marks": _marks(subject, over),
    }


def _means(measured: Metric, owners: Iterable[int], over: Span) -> dict[tuple[int, int], float | None]:
    owner = "gpu_id" if measured.of is GpuSample else "partition_id"
    rows = (
        measured.of.objects.filter(**{f"{owner}__in": list(owners)}, at__gte=_time(over.start), at__lt=_time(over.end))
        .annotate(bucket=Epoch("at") / over.step)
        .values_list(owner, "bucket")
        .annotate(mean=Avg(measured.field))
        .order_by()
    )
    return {(pk, int(bucket) * over.step): mean for pk, bucket, mean in rows}


def _marks(subject: Subject, over: Span) -> list[dict[str, Any]]:
    """Changes to the node, its partitions and GPUs; the newest where there are too many."""
    whose = Q(subject_type="node", subject_id__in=subject.nodes)
    whose |= Q(subject_type="partition", subject_id__in=[partition.pk for partition in subject.partitions])
    whose |= Q(subject_type="gpu", subject_id__in=[gpu.pk for gpu in subject.gpus])
    events = AuditEvent.objects.filter(whose, at__gte=_time(over.start), at__lt=_time(over.end)).order_by("-at")
    return [
        {
            "at": event.at.timestamp(),
            "text": f"{event.actor_name}: {event.verb} {event.subject_name}",
            "kind": event.verb,
        }
        for event in reversed(events[:MAX_MARKS])
    ]


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
