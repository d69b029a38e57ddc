"""All GPUs and engines together, a row a minute and one an hour: what a chart of the whole fleet is drawn from, however
large it is. A row's figures are, by metric, p10, p50 and p90 over the GPUs or engines and their sum (of what flows) or
mean; `latencies` are of all requests that ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from controlplane.domain.histograms import Counts
from controlplane.fleet.models import Gpu
from controlplane.telemetry import latencies, rows
from controlplane.telemetry.metrics import METRICS, Metric
from controlplane.telemetry.models import FleetSample
from controlplane.telemetry.spans import Stretch, Tier, moment

SHARES = (0.1, 0.5, 0.9)
Figures = tuple[float | None, ...]  # one per share, then the sum or mean


class Row(msgspec.Struct, omit_defaults=True):
    metrics: dict[str, Figures] = {}
    latencies: str | None = None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Row)


def make(tier: Tier, within: tuple[datetime, datetime]) -> None:
    """From the tier's own rows of that time."""
    made: dict[datetime, Row] = {}
    for of_gpus, model in ((True, tier.gpus), (False, tier.engines)):
        names = [name for name, metric in METRICS.items() if metric.of_gpus == of_gpus and metric.field]
        columns = sorted({column for name in names for column in (METRICS[name].field, METRICS[name].over) if column})
        extra = () if of_gpus else ("latencies",)
        # The database finds GPUs' rows by owner alone; engines' by time as well.
        owned = {"gpu_id__in": Gpu.objects.order_by().values("pk")} if of_gpus else {}
        found = model.objects.filter(at__gte=within[0], at__lt=within[1], **owned)
        found = found.values_list("at", *extra, *columns).order_by()
        by_moment: dict[datetime, list[tuple[Any, ...]]] = {}
        for at, *values in found:
            by_moment.setdefault(at, []).append(tuple(values))
        for at, many in by_moment.items():
            row = made.setdefault(at, Row())
            if not of_gpus:
                row.latencies = latencies.encode(_ended(values[0] for values in many))
            told = dict(zip(columns, zip(*(values[len(extra) :] for values in many), strict=True), strict=True))
            row.metrics |= {name: figures for name in names if (figures := _of(METRICS[name], told))}
    values = [(tier.width, at, _encode(row).decode()) for at, row in made.items()]
    rows.insert(FleetSample, ("width_s", "at", "figures"), values, anew=("width_s", "at"))


def read(stretch: Stretch) -> Iterator[tuple[int, Row]]:
    within = {"at__gte": moment(stretch.start), "at__lt": moment(stretch.end)}
    found = FleetSample.objects.filter(width_s=stretch.tier.width, **within).values_list("at", "figures")
    for at, text in found.iterator():
        yield int(at.timestamp()), _decoder.decode(text)


def figures_of(known: Sequence[float], flows: bool) -> Figures:
    """`known`: one value or more."""
    ordered = sorted(known)
    total = sum(ordered) if flows else sum(ordered) / len(ordered)
    return (*(at_share(ordered, share) for share in SHARES), total)


def at_share(ordered: Sequence[float], share: float) -> float:
    """The quantile of values in order, between two of them as far as it lies."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _of(metric: Metric, told: dict[str, tuple[float | None, ...]]) -> Figures | None:
    tops = told[metric.field]
    if not metric.over:
        known = [top for top in tops if top is not None]
        return figures_of(known, metric.flows) if known else None
    pairs = [(top, bottom) for top, bottom in zip(tops, told[metric.over], strict=True) if top is not None and bottom]
    if not pairs:
        return None
    ratios = figures_of([metric.scale * top / bottom for top, bottom in pairs], flows=False)
    whole = metric.scale * sum(top for top, _ in pairs) / sum(bottom for _, bottom in pairs)
    return (*ratios[:-1], whole)


def _ended(texts: Iterator[str | None]) -> dict[str, Counts]:
    made: dict[str, Counts] = {}
    for text in texts:
        for name, counts in latencies.decode(text).items():
            made.setdefault(name, Counts()).add(counts)
    return made
