"""The pool's slots as the values that domain.pool decides on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from controlplane.domain import placement
from controlplane.domain.pool import Resident, Slot
from controlplane.domain.types import Role
from controlplane.fleet import pool_habits, pool_use
from controlplane.fleet.facts import deployment_view, has_process, node_view, partition_view
from controlplane.fleet.models import Deployment, Partition, PoolAim
from controlplane.fleet.pool_use import Use
from controlplane.fleet.services import exclusive
from workers.contract import Phase

Chances = Mapping[str, float]  # by deployment: that it is asked for again soon


def rows() -> list[Partition]:
    """Every slot with all that is asked of it, in four queries."""
    found = Partition.objects.filter(pool=True).select_related("node", "deployment__model")
    return list(found.prefetch_related("gpus", "node__gpus", "node__partitions").order_by("pk"))


def slots(found: Sequence[Partition], now: datetime, chances: Chances | None = None) -> list[Slot]:
    """All of them. Who is in one that the pool may not empty - pinned, dedicated, part of a change - counts as busy.
    `chances`: None: as the planner learned them."""
    chances = pool_habits.chances(now) if chances is None else chances
    look = _Look(pool_use.read(now), now, chances, keep_alive_s(), frozenset(exclusive.held()))
    return [look.slot(row) for row in found]


def keep_alive_s() -> int:
    """Of deployments that have none of their own: as the planner has it, until it spoke as configured."""
    told = PoolAim.objects.values_list("keep_alive_s", flat=True).first()
    return settings.CAPACITY_KEEP_ALIVE_S if told is None else told


def holding(found: Sequence[Partition], deployment: Deployment) -> set[int]:
    """Those where nothing stands against the deployment's engine, but for who may be there now."""
    view = deployment_view(deployment)
    at, silent = time.time(), settings.SILENT_AFTER_S
    return {
        row.pk
        for row in found
        if not placement.check(
            partition_view(row),
            view,
            Role.AGGREGATED,
            node=node_view(row.node),
            peers=[],
            now=at,
            silent_after_s=silent,
        )
    }


@dataclass(frozen=True, slots=True)
class _Look:
    uses: Mapping[str, Use] | None
    now: datetime
    chances: Chances
    keep_alive_s: int
    held: frozenset[int]  # partitions of changes that are under way

    def slot(self, row: Partition) -> Slot:
        resident = None
        if row.deployment is not None:
            resident = self._resident(row, row.deployment)
        elif row.pk in self.held:
            resident = Resident(0, None, None, 0.0, 0.0)
        return Slot(row.pk, sum(gpu.memory_bytes for gpu in row.gpus.all()), resident, clear=not has_process(row))

    def _resident(self, row: Partition, there: Deployment) -> Resident:
        is_ready = row.phase == Phase.READY and row.observed_generation == row.generation and row.phase_since
        stays = row.pk in self.held or row.pinned or there.mode != Deployment.Mode.POOLED or not is_ready
        use = Use(None) if self.uses is None else self.uses.get(there.name, Use())
        resident_s = max(0.0, (self.now - row.phase_since).total_seconds()) if is_ready else 0.0
        idle_s = min(resident_s, (self.now - use.last_at).total_seconds()) if use.last_at else resident_s
        return Resident(
            there.pk,
            None if stays else use.in_flight,
            None if stays or use.in_flight is None else max(0.0, idle_s),
            resident_s,
            float(self.keep_alive_s if there.keep_alive_s is None else there.keep_alive_s),
            there.priority,
            self.chances.get(there.name),
        )
