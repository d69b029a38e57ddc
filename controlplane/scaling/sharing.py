"""Partitions between those who want them: dedicated deployments first, then the pool."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from controlplane.domain import allotment, placement, pool_sizes
from controlplane.domain.allotment import Allotment, Place, Want, Worth
from controlplane.domain.impact import Action
from controlplane.domain.pool_sizes import Sized
from controlplane.domain.rollout import Lane
from controlplane.fleet.facts import deployment_view, has_process, node_view, partition_view
from controlplane.fleet.models import Deployment, Partition, PoolAim
from controlplane.fleet.services import checks, exclusive
from controlplane.scaling import recovering, worth
from controlplane.scaling.gathering import Fleet, is_ready
from controlplane.telemetry.latest import EngineFigures
from workers.contract import Role

ANY = 1  # GPUs that every slot has; one on a CPU counts as one


@dataclass(frozen=True, slots=True)
class Shared:
    """`pool`: partitions to set aside for the pool, or to take back from it: {partition, name, pool, why}."""

    allotment: Allotment
    pool: tuple[Mapping[str, Any], ...]
    names: Mapping[int, str]


def share(wants: Sequence[Want], fleet: Fleet, now: datetime) -> Shared:
    held = exclusive.held() | recovering.resting(now)
    slots = [row for row in fleet.partitions if row.pool]
    spare = _spare_slots(slots, held)
    barred = held | fleet.lost
    usable = [
        row for row in fleet.partitions if row.pk not in barred and not row.pinned and (not row.pool or row.pk in spare)
    ]
    found = allotment.allot(
        wants, [_place(row, fleet.figures.get(row.pk), now) for row in usable], *_lawful(wants, usable, now)
    )
    taken = {given.move.partition for given in found.moves}
    back = [_pooled(row, False, "the pool needs fewer slots than it has") for row in slots if row.pk in taken]
    more = _to_set_aside(slots, [row for row in usable if row.pk not in taken])
    names = {row.pk: str(row) for row in fleet.partitions}
    return Shared(found, (*back, *more), names)


def _spare_slots(slots: Sequence[Partition], held: set[int]) -> set[int]:
    """Empty ones beyond what the pool shall hold."""
    aim = _aim()
    if aim is None:
        return set()
    empty = [row for row in slots if row.deployment_id is None and row.pk not in held]
    found = pool_sizes.spare(_sized(slots), _sized(empty), aim, least=settings.POOL_FREE)
    return {one.partition for one in found}


def _to_set_aside(slots: Sequence[Partition], left: Sequence[Partition]) -> list[Mapping[str, Any]]:
    """Free partitions that nobody wants, as many as the pool is short of, the smallest that will do first."""
    aim = _aim()
    if aim is None or not Deployment.objects.filter(mode=Deployment.Mode.POOLED).exists():
        return []
    free = [row for row in left if row.deployment_id is None and not row.pool and row.node.schedulable]
    free.sort(key=lambda row: (sum(gpu.memory_bytes for gpu in row.gpus.all()), row.pk))
    have, by_id = [one.gpus for one in _sized(slots)], {row.pk: row for row in free}
    return [
        _pooled(by_id[one.partition], True, _lacking(aim, have, gpus))
        for one, gpus in pool_sizes.to_add(have, _sized(free), aim)
    ]


def _pooled(row: Partition, pool: bool, why: str) -> Mapping[str, Any]:
    return {"partition": row.pk, "name": str(row), "pool": pool, "why": why}


def _lacking(aim: Mapping[int, int], have: Sequence[int], gpus: int) -> str:
    if set(aim) == {ANY}:
        return f"the pool shall hold {aim[ANY]} slots and has {len(have)}"
    wanted, able = sum(aim[size] for size in aim if size >= gpus), sum(size >= gpus for size in have)
    return f"the pool shall hold {_many(wanted, 'slot')} with {_many(gpus, 'GPU')} or more and has {able}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _aim() -> dict[int, int] | None:
    """Slots by the GPUs that they need; where all need the same, any will do."""
    row = PoolAim.objects.first()
    if row is None or row.slots is None:
        return None
    return {int(gpus): count for gpus, count in row.by_gpus.items()} or {ANY: row.slots}


def _sized(rows: Sequence[Partition]) -> list[Sized]:
    return [Sized(row.pk, max(ANY, len(row.gpus.all()))) for row in rows]


def _place(row: Partition, figures: EngineFigures | None, now: datetime) -> Place:
    lane = (row.deployment_id, Role(row.role)) if row.deployment_id is not None else None
    running = figures.running if figures else None
    waiting = figures.waiting if figures else None
    return Place(
        partition=row.pk,
        memory_bytes=sum(gpu.memory_bytes for gpu in row.gpus.all()),
        lane=lane,
        ready=lane is not None and is_ready(row, now),
        in_flight=None if running is None else running + (waiting or 0.0),
    )


def _lawful(
    wants: Sequence[Want], usable: Sequence[Partition], now: datetime
) -> tuple[dict[Lane, set[int]], set[tuple[int, Lane]], dict[tuple[int, Lane], Worth]]:
    """For lanes that lack engines: where one could run, where the engine that runs would only change its role, and what
    free partitions would cost."""
    short = [want.lane for want in wants if want.missing]
    rows = Deployment.objects.select_related("model").in_bulk({lane[0] for lane in short})
    fits = {lane: _fitting(rows[lane[0]], lane[1], usable) for lane in short if lane[0] in rows}
    relabels = {
        (row.pk, lane)
        for lane, able in fits.items()
        for row in usable
        if row.pk in able and row.deployment_id == lane[0]
        if checks.action(row, rows[lane[0]], lane[1].value) is Action.RELABEL
    }
    free = [row for row in usable if row.deployment_id is None]
    return fits, relabels, {at: one for row in rows.values() for at, one in _worths(row, fits, free, now).items()}


def _worths(
    deployment: Deployment, fits: Mapping[Lane, set[int]], free: Sequence[Partition], now: datetime
) -> dict[tuple[int, Lane], Worth]:
    lanes = [lane for lane in fits if lane[0] == deployment.pk]
    able = [row for row in free if any(row.pk in fits[lane] for lane in lanes)]
    return worth.worths(deployment, lanes, able, now)


def _fitting(deployment: Deployment, role: Role, usable: Sequence[Partition]) -> set[int]:
    view, now = deployment_view(deployment), time.time()
    own = [partition_view(row) for row in usable if row.deployment_id == deployment.pk]
    return {
        row.pk
        for row in usable
        if not (row.deployment_id is None and has_process(row))
        and not placement.check(
            partition_view(row),
            view,
            role,
            node=node_view(row.node),
            peers=[peer for peer in own if peer.id != row.pk],
            now=now,
            silent_after_s=settings.SILENT_AFTER_S,
        )
    }
