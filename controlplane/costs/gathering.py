"""Reads what is on record of one hour: which engines were up, whose requests were at them, which GPUs there were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from django.conf import settings
from django.db.models import Count, F

from controlplane.costs.models import KnownEngine
from controlplane.domain.usage import HOUR_S, MINUTE_S, Stays, Ups
from controlplane.fleet.models import Deployment, Gpu, Partition
from controlplane.gateway.models import RequestRecord
from controlplane.telemetry.models import EngineMinute, GpuMinute
from controlplane.telemetry.reading import Epoch

HOUR = timedelta(hours=1)
LONGEST = timedelta(hours=1)  # a request that takes longer is counted for the last of it alone
CHUNK = 5_000
COLUMNS = (
    "at", "total_ms", "ttft_ms", "prefill_ms", "path", "prefill", "decode", "api_key_id", "deployment",
    "prompt_tokens", "completion_tokens", "cached_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stay:
    """One request at one engine. `before`: the share of its time until the first token; None: not known. Tokens and
    requests are those that are booked here in this hour."""

    engine: str  # node/partition
    deployment: str
    key: int | None
    start: float  # seconds since the hour began
    end: float
    weight: float
    before: float | None
    requests: int
    prompt: int
    completion: int


@dataclass(slots=True)
class Hour:
    engines: list[str] = field(default_factory=list)  # node/partition, as the arrays number them
    stays: list[Stay] = field(default_factory=list)
    up_deployments: list[str] = field(default_factory=list)  # by row of the ups
    ups: Ups = field(default_factory=lambda: _ups([]))
    gpu_s: dict[str, float] = field(default_factory=dict)  # by node: its GPUs' time that was reported

    def arrays(self) -> Stays:
        number = {name: at for at, name in enumerate(self.engines)}
        return Stays(
            np.array([number[one.engine] for one in self.stays], np.int64),
            np.array([one.start for one in self.stays], np.float64),
            np.array([one.end for one in self.stays], np.float64),
            np.array([one.weight for one in self.stays], np.float64),
        )


def remember_engines() -> None:
    """Keep what the partitions are, for when they are gone and their samples are not."""
    now = {
        pk: (node, name, gpus)
        for pk, node, name, gpus in Partition.objects.order_by()
        .annotate(size=Count("gpus"))
        .values_list("pk", "node__name", "name", "size")
    }
    known = {row.pk: (row.node, row.name, row.gpus) for row in KnownEngine.objects.all()}
    news = [
        KnownEngine(partition_id=pk, node=node, name=name, gpus=gpus)
        for pk, (node, name, gpus) in now.items()
        if gpus and known.get(pk) != (node, name, gpus)
    ]
    KnownEngine.objects.bulk_create(
        news, update_conflicts=True, unique_fields=["partition_id"], update_fields=["node", "name", "gpus"]
    )


def gather(start: datetime) -> Hour:
    """The hour that begins then, as far as it is on record."""
    found = Hour()
    _engines(found, start)
    found.stays = list(_stays(start))
    found.engines += sorted({one.engine for one in found.stays} - set(found.engines))
    found.gpu_s = _gpus(start)
    return found


def _engines(found: Hour, start: datetime) -> None:
    known = {row.pk: row for row in KnownEngine.objects.all()}
    names = dict(Deployment.objects.values_list("pk", "name"))
    rows = EngineMinute.objects.filter(at__gte=start, at__lt=start + HOUR, reports__gt=0)
    numbers: dict[str, int] = {}
    minutes: dict[tuple[int, int], tuple[float, float, str]] = {}
    for pk, at, deployment, covered_s, reports in rows.order_by("at").values_list(
        "partition_id", "at", "deployment_id", "covered_s", "reports"
    ):
        if (engine := known.get(pk)) is None:
            continue
        number = numbers.setdefault(f"{engine.node}/{engine.name}", len(numbers))
        place = number, int((at - start).total_seconds() // MINUTE_S)
        up_s, gpus, name = minutes.get(place, (0.0, engine.gpus, names.get(deployment, "")))
        # `covered_s` lacks the time before an engine's first report, and is all there is where reports are late.
        up_s += max(covered_s, reports * settings.REPORT_PERIOD_S)
        minutes[place] = min(MINUTE_S, up_s), gpus, name
    found.engines = list(numbers)
    found.up_deployments = [name for _, _, name in minutes.values()]
    found.ups = _ups([(*place, up_s, gpus) for place, (up_s, gpus, _) in minutes.items()])


def _ups(rows: list[tuple[int, int, float, float]]) -> Ups:
    table = np.array(rows, np.float64).reshape(-1, 4)
    return Ups(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])


def _stays(start: datetime) -> Iterator[Stay]:
    """Of requests that were there in the hour and have ended by now."""
    zero = start.timestamp()
    rows = (
        RequestRecord.objects.filter(at__gte=start - LONGEST, at__lt=start + HOUR)
        .annotate(ended=Epoch("at") + F("total_ms") / 1000.0)
        .filter(ended__gte=zero - 1.0)
        .order_by()
        .values_list(*COLUMNS)
    )
    for row in rows.iterator(CHUNK):
        yield from _of_request(row, zero)


def _of_request(row: tuple, zero: float) -> Iterator[Stay]:
    at, total_ms, ttft_ms, prefill_ms, path, prefill, decode, key, deployment, prompt, completion, cached = row
    start = at.timestamp() - zero
    end = start + total_ms / 1000.0
    prompt, completion = prompt or 0, completion or 0
    booked = int(0.0 <= end < HOUR_S)
    if path == "two_step" and prefill and prefill_ms is not None:
        passed = min(end, start + prefill_ms / 1000.0)
        yield Stay(prefill, deployment, key, start, passed, prompt, 1.0, 0, booked * prompt, 0)
        if decode:
            yield Stay(decode, deployment, key, passed, end, completion, 0.0, booked, 0, booked * completion)
    elif engine := decode or prefill:
        computed = max(0, prompt - (cached or 0)) + completion
        before = min(1.0, ttft_ms / total_ms) if ttft_ms is not None and total_ms > 0 else None
        yield Stay(engine, deployment, key, start, end, computed, before, booked, booked * prompt, booked * completion)


def _gpus(start: datetime) -> dict[str, float]:
    """A minute in which a GPU was reported counts whole."""
    nodes = dict(Gpu.objects.order_by().values_list("pk", "node__name"))
    rows = GpuMinute.objects.filter(gpu_id__in=list(nodes), at__gte=start, at__lt=start + HOUR)
    found: dict[str, float] = {}
    for pk, minutes in rows.order_by().values_list("gpu_id").annotate(minutes=Count("at")):
        found[nodes[pk]] = found.get(nodes[pk], 0.0) + minutes * MINUTE_S
    return found
