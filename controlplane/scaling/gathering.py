"""What is known of every role of every dedicated deployment now, as the rules take it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from controlplane.domain import health
from controlplane.domain.scaling import Lane, Load, Served
from controlplane.fleet.facts import partition_view
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.services import verdicts
from controlplane.gateway import summary
from controlplane.scaling import floors
from controlplane.scaling.floors import Floor, Sure, When
from controlplane.scaling.models import LaneLook, ScalingPolicy
from controlplane.telemetry import latest, valkey
from controlplane.telemetry.latest import EngineFigures
from workers.contract import Role

AHEAD = 2  # looks: by so many another worker may be ahead


@dataclass(frozen=True, slots=True)
class Gathered:
    """One deployment: its lanes by role, those that have engines or should have."""

    deployment: Deployment
    lanes: Mapping[Role, Lane]
    served: Served
    floor: Floor
    looks: Mapping[str, LaneLook]


@dataclass(frozen=True, slots=True)
class Fleet:
    """`figures`: of engines by partition, only of nodes that are heard. `lost`: partitions where nothing will serve for
    some time, or whose engine ends again and again."""

    partitions: tuple[Partition, ...]
    figures: Mapping[int, EngineFigures]
    lost: frozenset[int] = frozenset()


def fleet(now: datetime) -> Fleet:
    """Lent slots of the pool are there as slots: no lane counts them."""
    found = Partition.objects.select_related("node", "deployment__model").prefetch_related("gpus", "node__gpus")
    rows = tuple(found.order_by("pk"))
    lost = frozenset(row.pk for row in rows if verdicts.gone(row, now) or verdicts.broken(row, now))
    return Fleet(rows, _figures(), lost)


def gather(found: Fleet, policy: ScalingPolicy, now: datetime) -> list[Gathered]:
    looks: dict[int, dict[str, LaneLook]] = defaultdict(dict)
    for look in LaneLook.objects.filter(at__lte=horizon(now)):
        looks[look.deployment_id][look.role] = look
    served, when = summary.by_deployment(since=_complete_since(found, now)), When.at(now)
    sure = Sure(policy.level, policy.lengths_level)
    rows = Deployment.objects.select_related("model").filter(mode=Deployment.Mode.DEDICATED).order_by("name")
    return [
        _gathered(row, found, served=served.get(row.name), looks=looks[row.pk], sure=sure, when=when) for row in rows
    ]


def horizon(now: datetime) -> datetime:
    """A look that says it is of later was made before the clock was set back: its times tell nothing."""
    return now + AHEAD * timedelta(seconds=settings.SCALING_EVERY_S)


def _complete_since(found: Fleet, now: datetime) -> dict[str, datetime]:
    """When the last of its engines that are ready got so, by deployment."""
    since: dict[str, datetime] = {}
    for row in found.partitions:
        if row.deployment is not None and row.phase_since is not None and is_ready(row, now):
            since[row.deployment.name] = max(row.phase_since, since.get(row.deployment.name, row.phase_since))
    return since


def is_ready(row: Partition, now: datetime) -> bool:
    """Its node is heard, and has confirmed the assignment."""
    view = partition_view(row)
    heard = not health.is_silent(view.node_last_seen, now.timestamp(), settings.SILENT_AFTER_S)
    return heard and not row.node.revoked and health.is_confirmed(view)


def _gathered(
    row: Deployment,
    found: Fleet,
    *,
    served: summary.Served | None,
    looks: Mapping[str, LaneLook],
    sure: Sure,
    when: When,
) -> Gathered:
    floor = floors.floor(row, looks, sure, when)
    lanes = {role: _lane(row, role, found, floor=floor, look=looks.get(role.value), now=when.now) for role in Role}
    told = {role: lane for role, lane in lanes.items() if lane.count or lane.least or lane.floor or lane.lost}
    return Gathered(row, told, _served(row, served), floor, looks)


def _served(row: Deployment, told: summary.Served | None) -> Served:
    return Served(
        ttft_ms=told.ttft_p95_ms if told else None,
        itl_ms=told.itl_p95_ms if told else None,
        slo_ttft_ms=float(row.slo_ttft_ms) if row.slo_ttft_ms else None,
        slo_itl_ms=float(row.slo_itl_ms) if row.slo_itl_ms else None,
    )


def _lane(row: Deployment, role: Role, found: Fleet, *, floor: Floor, look: LaneLook | None, now: datetime) -> Lane:
    mine = [one for one in found.partitions if one.deployment_id == row.pk]
    assigned = [one for one in mine if one.role == role.value and not one.overflow]
    own = [one for one in assigned if one.pk not in found.lost]
    ready = [one for one in own if is_ready(one, now)]
    since = look.fewer_since if look else None
    return Lane(
        role=role,
        count=len(own),
        ready=len(ready),
        least=getattr(row, f"min_{role.value}"),
        most=getattr(row, f"max_{role.value}"),
        load=_load([found.figures.get(one.pk) for one in ready], _beyond(mine, role, found)),
        floor=floor.counts.get(role, 0) if floor.counts is not None else None,
        floor_why=floor.why,
        quiet_s=(now - since).total_seconds() if since else 0.0,
        lost=len(assigned) - len(own),
    )


def _beyond(mine: Sequence[Partition], role: Role, found: Fleet) -> float:
    """Requests at engines in slots that the pool lends: its own that answer had no room for them, so that they count
    there as waiting. What is not told counts as none."""
    has_decode = any(one.role == Role.DECODE.value for one in mine)
    if role is not (Role.DECODE if has_decode else Role.AGGREGATED):
        return 0.0
    told = [found.figures.get(one.pk) or EngineFigures() for one in mine if one.overflow]
    return sum((one.running or 0.0) + (one.waiting or 0.0) for one in told)


def _load(told: Sequence[EngineFigures | None], beyond: float) -> Load:
    """Unknown as soon as one engine does not tell: a sum without it would say that there is less to do."""
    figures = [one or EngineFigures() for one in told]
    running = [one.running for one in figures if one.running is not None]
    waiting = [one.waiting for one in figures if one.waiting is not None]
    usage = [one.kv_usage for one in figures if one.kv_usage is not None]
    return Load(
        sum(running) if len(running) == len(figures) else None,
        sum(waiting) + beyond if len(waiting) == len(figures) else None,
        max(usage) if usage and len(usage) == len(figures) else None,
    )


def _figures() -> dict[int, EngineFigures]:
    since = time.time() - settings.SILENT_AFTER_S
    try:
        heard = latest.read(Node.objects.values_list("pk", flat=True)).values()
    except valkey.Unreachable:
        return {}
    return {
        partition: figures for node in heard if node.seen >= since for partition, figures in node.engines.items()
    }  # fmt: skip
