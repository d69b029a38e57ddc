"""Deletes what is older than its width is kept, a little at a time so that other writers need not wait. Nothing raw
goes before the rows of its minute are made, nor a minute's before its hour's. Where rows lie in a table
a day, a day goes when all of it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.db import connection
from django.db.models import Min, Model

from controlplane.telemetry import days
from controlplane.telemetry.models import FleetSample, GpuHour, GpuMinute
from controlplane.telemetry.rollup import made_upto
from controlplane.telemetry.spans import HOUR, TIERS, Tier, moment

STEP_S = 300  # of time, in one transaction
WORK_S = 30.0  # then the next run goes on


def prune(now: float, *, work_s: float = WORK_S) -> None:
    until = time.monotonic() + work_s
    for tier, next_one in [*pairwise(TIERS), (TIERS[-1], None)]:
        before = _oldest(tier, next_one, now)
        if before is None:
            continue
        for model in (tier.gpus, tier.engines):
            _delete(model, before, until)
        FleetSample.objects.filter(width_s=tier.width, at__lt=before).delete()


def _oldest(tier: Tier, next_one: Tier | None, now: float) -> datetime | None:
    """What begins before it may go; None: nothing may."""
    keep_from = now - tier.keep_s
    if next_one is None:
        return moment(keep_from)
    made = made_upto(next_one.width)
    return None if made is None else moment(min(keep_from, made))


def _delete(model: type[Model], before: datetime, until: float) -> None:
    if days.are_kept(model):
        days.drop(model, before)
        return
    for some in _parts(model, before):
        if time.monotonic() > until:
            return
        some.delete()


def _parts(model: type[Model], before: datetime) -> Iterator[Any]:
    """Querysets of some rows each, until none is left."""
    if model in (GpuMinute, GpuHour):
        yield from (model.objects.filter(gpu_id=gpu, at__lt=before) for gpu in _owners(model))
        return
    first = model.objects.filter(at__lt=before).aggregate(first=Min("at"))["first"]
    while first is not None:
        upto = min(before, moment(first.timestamp() + (STEP_S if model is not TIERS[-1].engines else 24 * HOUR)))
        yield model.objects.filter(at__lt=upto)
        first = model.objects.filter(at__lt=before).aggregate(first=Min("at"))["first"]


def _owners(model: type[Model]) -> list[int]:
    """All that have rows, also those that are gone: one look into the index for each."""
    table = connection.ops.quote_name(model._meta.db_table)
    sql = (
        f"WITH RECURSIVE owner(id) AS (SELECT MIN(gpu_id) FROM {table} UNION ALL "  # noqa: S608
        f"SELECT (SELECT MIN(gpu_id) FROM {table} WHERE gpu_id > owner.id) FROM owner WHERE owner.id IS NOT NULL) "
        "SELECT id FROM owner WHERE id IS NOT NULL"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()]
