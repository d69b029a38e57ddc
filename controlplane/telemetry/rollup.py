"""Makes the rows of a minute from raw ones, and those of an hour from minutes'. Whole rows are made anew each time,
from all there is of their time, so that doing it twice, late or after a pause comes to the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any

from django.db import connection, transaction
from django.db.models import Min, Model

from controlplane.domain.histograms import Counts
from controlplane.telemetry import fleet_rows, latencies, rows
from controlplane.telemetry.models import Rollup
from controlplane.telemetry.reading import Epoch
from controlplane.telemetry.spans import HOUR, MINUTE, RAW, TIERS, Tier, moment
from controlplane.telemetry.windows import ENGINE_GAUGES, ENGINE_RATES, GPU_GAUGES

SETTLE_S = 20.0  # a web process may write a window that much late
AGAIN_S = 120.0  # what came later still is in the rows of so long ago: they are made once more
AT_ONCE_S = {MINUTE: 600, HOUR: 6 * 3600}  # of time, in one transaction
WORK_S = 20.0  # then the next run goes on
ENGINE_MEANS = (*ENGINE_GAUGES, "ttft_ms", "itl_ms")


def advance(now: float, *, work_s: float = WORK_S) -> None:
    """Make what can be made by `now`."""
    until = time.monotonic() + work_s
    for source, target in pairwise(TIERS):
        for start, end in _due(source, target, now):
            _make(source, target, start, end)
            if time.monotonic() > until:
                return


def made_upto(width: int) -> float | None:
    upto = Rollup.objects.filter(width_s=width).values_list("upto", flat=True).first()
    return upto.timestamp() if upto else None


def _due(source: Tier, target: Tier, now: float) -> Iterator[tuple[int, int]]:
    """Stretches of whole rows of `target` of which `source` holds everything."""
    upto = made_upto(target.width)
    first = _first(source) if upto is None else upto - (AGAIN_S if source.width == RAW else 0.0)
    if first is None:
        return
    last = now - SETTLE_S if source.width == RAW else (made_upto(source.width) or 0.0) - AGAIN_S
    start, end = _floor(first, target.width), _floor(last, target.width)
    while start < end:
        yield start, min(end, start + AT_ONCE_S[target.width])
        start += AT_ONCE_S[target.width]


def _first(source: Tier) -> float | None:
    firsts = [model.objects.aggregate(first=Min("at"))["first"] for model in (source.gpus, source.engines)]
    return min((first.timestamp() for first in firsts if first), default=None)


@transaction.atomic
def _make(source: Tier, target: Tier, start: int, end: int) -> None:
    within = moment(start), moment(end)
    _gpu_rows(source, target, within)
    _engine_rows(source, target, within)
    fleet_rows.make(target, within)
    Rollup.objects.update_or_create(width_s=target.width, defaults={"upto": within[1]})


def _gpu_rows(source: Tier, target: Tier, within: tuple[datetime, datetime]) -> None:
    """In the database alone, from its own rows into its own."""
    quote = connection.ops.quote_name
    weighed = ", ".join(_mean_sql(name, "reports") for name in GPU_GAUGES)
    columns = ("gpu_id", "at", *GPU_GAUGES, "reports")
    taken = ", ".join(f"{name} = excluded.{name}" for name in columns[2:])
    start = _start_sql(target.width)
    sql = (
        f"INSERT INTO {quote(target.gpus._meta.db_table)} ({', '.join(map(quote, columns))}) "  # noqa: S608
        f"SELECT gpu_id, {start}, {weighed}, SUM(reports) FROM {quote(source.gpus._meta.db_table)} "
        f"WHERE {_whose_sql(source, source.gpus)} at >= %s AND at < %s GROUP BY gpu_id, {start} "
        f"ON CONFLICT (gpu_id, at) DO UPDATE SET {taken}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [connection.ops.adapt_datetimefield_value(at) for at in within])


def _engine_rows(source: Tier, target: Tier, within: tuple[datetime, datetime]) -> None:
    """Here, since histograms add up here; engines are fewer than GPUs."""
    figures = (*ENGINE_MEANS, *ENGINE_RATES, "latencies", "reports", "covered_s")
    found = (
        source.engines.objects.filter(at__gte=within[0], at__lt=within[1])
        .annotate(epoch=Epoch("at"))
        .values_list("partition_id", "deployment_id", "epoch", *figures)
        .order_by("partition_id", "deployment_id", "epoch")
    )
    every = target.width
    made = []
    for (partition, deployment, at), parts in groupby(
        found.iterator(), lambda row: (*row[:2], row[2] // every * every)
    ):
        values = _added([dict(zip(("at", *figures), row[2:], strict=True)) for row in parts], source.every_s)
        made.append((partition, moment(at), deployment, *(values[name] for name in figures)))
    columns = ("partition_id", "at", "deployment_id", *figures)
    rows.insert(target.engines, columns, made, anew=("partition_id", "at", "deployment_id"))


def _added(parts: Sequence[dict[str, Any]], every_s: int) -> dict[str, Any]:
    """The rows of one engine as one. Those that two web processes share are scaled to the time there was."""
    counts, weights = _latencies(parts, every_s)
    return {
        **{name: _mean(parts, name, "reports") for name in ENGINE_GAUGES},
        **{name: _mean(parts, name, "covered_s") for name in ENGINE_RATES},
        **{f"{name}_ms": _latency_mean(parts, name, weights) for name in ("ttft", "itl")},
        "latencies": latencies.encode(counts),
        "reports": sum(part["reports"] for part in parts),
        "covered_s": sum(part["covered_s"] * weight for part, weight in zip(parts, weights, strict=True)),
    }


def _latencies(parts: Sequence[dict[str, Any]], every_s: int) -> tuple[dict[str, Counts], list[float]]:
    covered: dict[int, float] = {}
    for part in parts:
        covered[part["at"]] = covered.get(part["at"], 0.0) + part["covered_s"]
    weights = [min(1.0, 1.1 * every_s / max(covered[part["at"]], 0.001)) for part in parts]
    counts: dict[str, Counts] = {}
    for part, weight in zip(parts, weights, strict=True):
        for name, told in latencies.decode(part["latencies"]).items():
            counts.setdefault(name, Counts()).add(told, weight)
    return counts, weights


def _latency_mean(parts: Sequence[dict[str, Any]], name: str, weights: Sequence[float]) -> float | None:
    """Weighed by how many ended, where rows tell; a row without a histogram counts as one."""
    top = bottom = 0.0
    for part, weight in zip(parts, weights, strict=True):
        if (mean := part[f"{name}_ms"]) is not None:
            told = latencies.decode(part["latencies"]).get(name)
            ended = weight * (told.total if told else 1.0)
            top, bottom = top + mean * ended, bottom + ended
    return top / bottom if bottom else None


def _mean(parts: Sequence[dict[str, Any]], name: str, weight: str) -> float | None:
    known = [(part[name], part[weight]) for part in parts if part[name] is not None and part[weight]]
    return sum(value * by for value, by in known) / sum(by for _, by in known) if known else None


def _mean_sql(name: str, weight: str) -> str:
    mean = f"SUM(1.0 * {name} * {weight}) / SUM(CASE WHEN {name} IS NOT NULL THEN {weight} END)"
    return f"CAST({mean} AS BIGINT)" if name == "memory_used_bytes" else mean


def _start_sql(width: int) -> str:
    """The start of the row that `at` falls in."""
    if connection.vendor == "sqlite":
        return f"strftime('%%Y-%%m-%%d %%H:{'%%M' if width == MINUTE else '00'}:00', at)"
    return f"date_trunc('{'minute' if width == MINUTE else 'hour'}', at, 'UTC')"


def _whose_sql(source: Tier, model: type[Model]) -> str:
    """Wider rows lie by owner, with no index by time: the owners lead to their time."""
    if source.width == RAW:
        return ""
    return f"gpu_id IN (SELECT id FROM {connection.ops.quote_name('fleet_gpu')}) AND "  # noqa: S608


def _floor(at: float, width: int) -> int:
    return int(at // width) * width
