"""Samples over time for a chart: lines, a sum or bands per step, null where nothing is known, and the changes that
explain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from controlplane.audit.models import AuditEvent
from controlplane.domain.histograms import mean as mean_of
from controlplane.domain.histograms import merged, quantile
from controlplane.fleet.models import Gpu, Partition
from controlplane.telemetry import reading
from controlplane.telemetry.metrics import METRICS, Metric
from controlplane.telemetry.reading import Latency, Place
from controlplane.telemetry.spans import MAX_POINTS, Span, moment, span
from controlplane.telemetry.subjects import (
    Subject,
    of_deployment,
    of_fleet,
    of_gpu,
    of_label,
    of_model,
    of_node,
    of_partition,
)

T = TypeVar("T")
LINES, BAND, TOTAL = "series", "band", "total"
SHAPES = (LINES, BAND, TOTAL)
BAND_SHARES = (0.1, 0.5, 0.9)
MAX_LINES = 256
MAX_MARKS = 100

__all__ = [
    "MAX_POINTS",
    "METRICS",
    "SHAPES",
    "Subject",
    "of_deployment",
    "of_fleet",
    "of_gpu",
    "of_label",
    "of_model",
    "of_node",
    "of_partition",
    "read",
    "span",
]


class TooManyLines(Exception):
    """A line each would be more than anybody reads, or a page draws."""

    def __init__(self, lines: int) -> None:
        super().__init__(f"That would be {lines} lines; a chart has {MAX_LINES} at most.")


def line_count(subject: Subject, metric: str) -> int:
    """How many GPUs or engines are read."""
    if METRICS[metric].of_gpus:
        return Gpu.objects.count() if subject.all_of_it else len(subject.gpus)
    return Partition.objects.exclude(deployment=None).count() if subject.all_of_it else len(subject.partitions)


def read(
    subject: Subject, metric: str, over: Span, *, shape: str = LINES, quantiles: Sequence[float] = ()
) -> dict[str, Any]:
    """What GET /api/v1/samples gives. Raises TooManyLines."""
    measured = METRICS[metric]
    if measured.latency:
        drawn = _latency(subject, measured, over, shape, quantiles)
    else:
        drawn = _drawn(subject, measured, over, shape)
    return {
        "metric": metric,
        "unit": measured.unit,
        "from": over.start,
        "to": over.end,
        "step": over.step,
        "series": [],
        "bands": [],
        **drawn,
        "marks": _marks(subject, over),
    }


def _drawn(subject: Subject, measured: Metric, over: Span, shape: str) -> dict[str, Any]:
    if shape == LINES:
        owners = _owners(subject, measured)
        return _lines(owners, reading.means(subject, measured, over), over)
    values = _by_step(reading.means(subject, measured, over))
    if shape == BAND:
        return _band({at: [_at(sorted(known), share) for share in BAND_SHARES] for at, known in values.items()}, over)
    together = {at: sum(known) if measured.flows else sum(known) / len(known) for at, known in values.items()}
    return {"series": [_line(None, "total" if measured.flows else "mean", together, over)]}


def _latency(subject: Subject, measured: Metric, over: Span, shape: str, quantiles: Sequence[float]) -> dict[str, Any]:
    """Percentiles are of all requests that ended, at whichever engine."""
    found = reading.ended(subject, measured, over)
    if shape == LINES and not quantiles and measured.field:
        return _lines(_owners(subject, measured), {place: _mean_ms(told) for place, told in found.items()}, over)
    together = {at: merged(told.counts for told in many) for at, many in _by_step(found).items()}
    shares = BAND_SHARES if shape == BAND else tuple(quantiles)
    if shape == TOTAL and not quantiles:
        means = {at: _mean_ms(_together(many)) for at, many in _by_step(found).items()}
        return {"series": [_line(None, "mean", means, over)]}
    told = {at: [_ms(quantile(counts, share)) for share in shares or (0.5, 0.95)] for at, counts in together.items()}
    if shape == BAND:
        return _band(told, over)
    return {
        "series": [
            _line(None, _percentile(share), {at: values[number] for at, values in told.items()}, over)
            for number, share in enumerate(shares or (0.5, 0.95))
        ]
    }


def _owners(subject: Subject, measured: Metric) -> dict[int, str]:
    if subject.all_of_it:
        subject = _all(measured)
    owners = subject.gpu_labels() if measured.of_gpus else subject.partition_labels()
    if len(owners) > MAX_LINES:
        raise TooManyLines(len(owners))
    return owners


def _all(measured: Metric) -> Subject:
    kind = Gpu if measured.of_gpus else Partition
    count = kind.objects.count()
    if count > MAX_LINES:
        raise TooManyLines(count)
    rows = tuple(kind.objects.select_related("node").defer("node__spec"))
    return Subject(gpus=rows) if measured.of_gpus else Subject(partitions=rows)


def _lines(owners: Mapping[int, str], values: Mapping[Place, float | None], over: Span) -> dict[str, Any]:
    return {
        "series": [
            {"id": pk, "label": label, "points": [[at, values.get((pk, at))] for at in over.points]}
            for pk, label in owners.items()
        ]
    }


def _line(pk: int | None, label: str, values: Mapping[int, float | None], over: Span) -> dict[str, Any]:
    return {"id": pk, "label": label, "points": [[at, values.get(at)] for at in over.points]}


def _band(values: Mapping[int, Sequence[float | None]], over: Span) -> dict[str, Any]:
    nothing: list[float | None] = [None] * len(BAND_SHARES)
    label = ", ".join(_percentile(share) for share in BAND_SHARES)
    return {"bands": [{"label": label, "points": [[at, *values.get(at, nothing)] for at in over.points]}]}


def _by_step(values: Mapping[Place, T]) -> dict[int, list[T]]:
    steps: dict[int, list[T]] = {}
    for (_, at), value in values.items():
        steps.setdefault(at, []).append(value)
    return steps


def _at(ordered: Sequence[float], share: float) -> float:
    """The quantile of values in order, between two of them as far as it lies."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _together(many: Iterable[Latency]) -> Latency:
    made = Latency()
    for told in many:
        made.counts.add(told.counts)
        made.means += told.means
    return made


def _mean_ms(told: Latency) -> float | None:
    if told.counts.inside or not told.means:
        return _ms(mean_of(told.counts))
    return sum(told.means) / len(told.means)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0


def _percentile(share: float) -> str:
    return f"p{share * 100:g}"


def _marks(subject: Subject, over: Span) -> list[dict[str, Any]]:
    """Changes to what the subject is of; the newest where there are too many."""
    within = {"at__gte": moment(over.start), "at__lt": moment(over.end)}
    events = AuditEvent.objects.filter(subject.changes(), **within).order_by("-at")
    return [
        {
            "at": event.at.timestamp(),
            "text": f"{event.actor_name}: {event.verb} {event.subject_name}",
            "kind": event.verb,
        }
        for event in reversed(events[:MAX_MARKS])
    ]
