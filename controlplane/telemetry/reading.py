"""Samples out of the database: sums by owner and step that add up over rows of different widths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Case, F, FloatField, Func, IntegerField, Q, QuerySet, Sum, When
from django.db.models.functions import Cast

from controlplane.domain.histograms import Counts
from controlplane.telemetry import fleet_rows, latencies
from controlplane.telemetry.metrics import Metric
from controlplane.telemetry.spans import RAW, Span, Stretch, moment, stretches
from controlplane.telemetry.subjects import Subject

RAW_END_S = 900
Place = tuple[int, int]  # the owner, and the step's start


class Epoch(Func):
    """Whole unix seconds of a time column."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # Three times as quick as strftime, which writes text. Half a millisecond is what its days lack in digits.
        template = "CAST((julianday(%(expressions)s) - 2440587.5) * 86400.0 + 0.0005 AS INTEGER)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="CAST(EXTRACT(EPOCH FROM %(expressions)s) AS BIGINT)", **extra
        )


@dataclass(slots=True)
class Latency:
    """What ended at one owner within one step; `means` where rows hold no histogram, from agents that send none."""

    counts: Counts = field(default_factory=Counts)
    means: list[float] = field(default_factory=list)


def means(subject: Subject, measured: Metric, over: Span) -> dict[Place, float]:
    """By owner and step; what is not there is unknown."""
    sums: dict[Place, tuple[float, float]] = {}
    for stretch in stretches(over):
        for owner, bucket, top, bottom in _sums(_rows(subject, measured, stretch), measured, over.step):
            if top is not None and bottom:
                place = owner, bucket * over.step
                before = sums.get(place)
                sums[place] = (top + before[0], bottom + before[1]) if before else (top, bottom)
    return {place: measured.scale * top / bottom for place, (top, bottom) in sums.items()}


def ended(subject: Subject, measured: Metric, over: Span) -> dict[Place, Latency]:
    """What the engines counted of one latency, by engine and step."""
    found: dict[Place, Latency] = {}
    for stretch in stretches(over):
        for owner, at, weight, text, mean in _latency_rows(subject, measured, stretch):
            told = found.setdefault((owner, at // over.step * over.step), Latency())
            counts = latencies.decode(text).get(measured.latency)
            if counts is not None:
                told.counts.add(counts, weight)
            elif mean is not None:
                told.means.append(mean)
    return found


def fleet(over: Span) -> Iterator[tuple[int, int, fleet_rows.Row]]:
    """The fleet's own rows: the step each falls in, how wide it is, what it says."""
    for stretch in stretches(over):
        if stretch.tier.width != RAW:
            for at, row in fleet_rows.read(stretch):
                yield at // over.step * over.step, stretch.tier.width, row


def raw_end(over: Span) -> Span:
    """What the fleet has no wider rows of yet: a minute or two, and never more than RAW_END_S."""
    last = stretches(over)[-1:]
    if not last or last[0].tier.width != RAW:
        return Span(over.end, over.end, over.step)
    return Span(max(last[0].start, over.end - max(over.step, RAW_END_S)), over.end, over.step)


def _rows(subject: Subject, measured: Metric, stretch: Stretch) -> QuerySet[Any]:
    model = stretch.tier.gpus if measured.of_gpus else stretch.tier.engines
    return model.objects.filter(
        _whose(subject, measured), at__gte=moment(stretch.start), at__lt=moment(stretch.end)
    ).order_by()


def _whose(subject: Subject, measured: Metric) -> Q:
    if subject.all_of_it:
        return Q()
    if measured.of_gpus:
        return Q(gpu_id__in=[gpu.pk for gpu in subject.gpus])
    if subject.deployments:
        return Q(deployment_id__in=subject.deployments)
    return Q(partition_id__in=[partition.pk for partition in subject.partitions])


def _sums(rows: QuerySet[Any], measured: Metric, step: int) -> Iterable[tuple[int, int, float | None, float | None]]:
    owner = "gpu_id" if measured.of_gpus else "partition_id"
    weight = Cast(F(measured.weight), FloatField())
    top = Sum(Cast(F(measured.field), FloatField()) * weight)
    if measured.over:
        bottom = Sum(Case(When(**{f"{measured.field}__isnull": False}, then=F(measured.over) * weight)))
    else:
        bottom = Sum(Case(When(**{f"{measured.field}__isnull": False}, then=weight)))
    grouped = rows.annotate(bucket=Epoch("at") / step).values(owner, "bucket")
    query = grouped.annotate(top=top, bottom=bottom).values_list(owner, "bucket", "top", "bottom").query
    try:
        sql, parameters = query.sql_with_params()
    except EmptyResultSet:  # the subject has no such thing: a node without partitions
        return []
    with connection.cursor() as cursor:  # as they come: turning each figure into itself took a third of the time
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def _latency_rows(
    subject: Subject, measured: Metric, stretch: Stretch
) -> Iterator[tuple[int, int, float, str | None, float | None]]:
    """Each row with its weight: two web processes that share a window have each seen all of it."""
    mean = measured.field or "ttft_ms"
    rows = list(
        _rows(subject, measured, stretch)
        .annotate(epoch=Epoch("at"))
        .values_list("partition_id", "epoch", "covered_s", "latencies", mean)
    )
    covered: dict[Place, float] = {}
    for owner, at, covered_s, _, _ in rows:
        covered[owner, at] = covered.get((owner, at), 0.0) + covered_s
    for owner, at, _, text, value in rows:
        weight = min(1.0, 1.1 * stretch.tier.every_s / max(covered[owner, at], 0.001))
        yield owner, at, weight, text, value if measured.field else None
