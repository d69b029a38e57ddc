"""Samples over time for a chart: lines, a sum or bands per step, null where nothing is known, and the changes that
explain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from django.conf import settings

from controlplane.audit.models import AuditEvent
from controlplane.domain.histograms import mean as mean_of
from controlplane.domain.histograms import merged, quantile
from controlplane.fleet.models import Gpu, Partition
from controlplane.telemetry import fleet_rows, latencies, reading
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
MAX_LINES = 256
MAX_MARKS = 100

__all__ = [
    "MAX_POINTS",
    "METRICS",
    "SHAPES",
    "Span",
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
        subject = _all(measured) if subject.all_of_it else subject
        return _lines(_owners(subject, measured), reading.means(subject, measured, over), over)
    figures = _figures(subject, measured, over)
    if shape == BAND:
        return _band({at: told[:-1] for at, told in figures.items()}, over)
    label = "total" if measured.flows else "mean"
    return {"series": [_line(None, label, {at: told[-1] for at, told in figures.items()}, over)]}


def _figures(subject: Subject, measured: Metric, over: Span) -> dict[int, fleet_rows.Figures]:
    """By step, over GPUs or engines. Of the fleet, steps of several rows have the mean of the rows' figures."""
    if not (subject.all_of_it and over.width):
        many = _by_step(reading.means(subject, measured, over))
        return {at: fleet_rows.figures_of(known, measured.flows) for at, known in many.items()}
    found: dict[int, list[tuple[int, fleet_rows.Figures]]] = {}
    for at, weight, row in reading.fleet(over):
        if told := row.metrics.get(_name(measured)):
            found.setdefault(at, []).append((weight, told))
    for at, told in _figures(subject, measured, reading.raw_end(over)).items():
        found.setdefault(at, []).append((settings.SAMPLE_EVERY_S, told))
    return {at: _weighed(many) for at, many in found.items()}


def _weighed(many: Sequence[tuple[int, fleet_rows.Figures]]) -> fleet_rows.Figures:
    weights = sum(weight for weight, _ in many)
    columns = zip(*(told for _, told in many), strict=True)
    return tuple(
        sum(weight * (value or 0.0) for (weight, _), value in zip(many, column, strict=True)) / weights
        for column in columns
    )


def _name(measured: Metric) -> str:
    return next(name for name, metric in METRICS.items() if metric is measured)


def _latency(subject: Subject, measured: Metric, over: Span, shape: str, quantiles: Sequence[float]) -> dict[str, Any]:
    """Percentiles are of all requests that ended, at whichever engine."""
    if shape == LINES and not quantiles and measured.field:
        subject = _all(measured) if subject.all_of_it else subject
        each = reading.ended(subject, measured, over)
        return _lines(_owners(subject, measured), {place: _mean_ms(told) for place, told in each.items()}, over)
    found = _ended(subject, measured, over)
    together = {at: merged(told.counts for told in many) for at, many in _by_step(found).items()}
    shares = fleet_rows.SHARES if shape == BAND else tuple(quantiles)
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


def _ended(subject: Subject, measured: Metric, over: Span) -> dict[Place, Latency]:
    """By engine and step; of the fleet's wider rows all are one."""
    if not (subject.all_of_it and over.width):
        return reading.ended(subject, measured, over)
    found = reading.ended(subject, measured, reading.raw_end(over))
    for at, _, row in reading.fleet(over):
        told = found.setdefault((0, at), Latency())
        if counts := latencies.decode(row.latencies).get(measured.latency):
            told.counts.add(counts)
        elif figures := row.metrics.get(_name(measured)):
            told.means.append(figures[-1])
    return found


def _owners(subject: Subject, measured: Metric) -> dict[int, str]:
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
    nothing: list[float | None] = [None] * len(fleet_rows.SHARES)
    label = ", ".join(_percentile(share) for share in fleet_rows.SHARES)
    return {"bands": [{"label": label, "points": [[at, *values.get(at, nothing)] for at in over.points]}]}


def _by_step(values: Mapping[Place, T]) -> dict[int, list[T]]:
    steps: dict[int, list[T]] = {}
    for (_, at), value in values.items():
        steps.setdefault(at, []).append(value)
    return steps


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
    within = {"at__gte": moment(over.start), "at__lt": moment(max(over.end, over.until))}
    events = AuditEvent.objects.filter(subject.changes(), **within).order_by("-at")
    return [
        {
            "at": event.at.timestamp(),
            "text": f"{event.actor_name}: {event.verb} {event.subject_name}",
            "kind": event.verb,
        }
        for event in reversed(events[:MAX_MARKS])
    ]
