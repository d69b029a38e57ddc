"""The pool's slots as the values that domain.pool decides on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar, cast

from django.conf import settings
from django.db.models import Count

from controlplane.domain import placement, tenancy
from controlplane.domain.keepalive import START
from controlplane.domain.pairing import OPPOSITE
from controlplane.domain.pool import Resident, Slot
from controlplane.domain.pool_pairs import Half
from controlplane.domain.tenancy import Floors, Holdings
from controlplane.domain.types import DeploymentView, Role
from controlplane.fleet import brake, pool_habits, pool_keep, pool_use
from controlplane.fleet.facts import deployment_view, has_process, node_view, partition_view
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.pool_keep import Keeps
from controlplane.fleet.pool_use import Use
from controlplane.fleet.services import exclusive, lending
from workers.contract import Phase

T = TypeVar("T")
Chances = Mapping[str, float]  # by deployment: that it is asked for again soon


def holdings(floors: Floors, now: datetime) -> Holdings:
    """How many GPUs of the pool the models of each team have, without those that are lent, and how many nobody has, on
    nodes that take engines."""
    pool = Partition.objects.filter(pool=True).order_by()
    taken = (
        pool.exclude(deployment=None).exclude(overflow=True).values_list("deployment_id").annotate(gpus=Count("gpus"))
    )
    heard = now - timedelta(seconds=settings.SILENT_AFTER_S)
    able = {"node__schedulable": True, "node__draining": False, "node__revoked": False, "node__last_seen__gt": heard}
    free = pool.filter(deployment=None, **able).aggregate(gpus=Count("gpus"))["gpus"]
    return Holdings.of(floors, dict(taken), free)


def rows(*, empty: bool = False) -> list[Partition]:
    """Every slot with its deployment, node and GPUs, in three queries. Slots of one node share its row, and what is
    large is left out: it is asked for every second, and there may be hundreds. `empty`: only those of nobody."""
    slots = Partition.objects.filter(pool=True, **({"deployment": None} if empty else {}))
    found = list(slots.select_related("deployment").prefetch_related("gpus").order_by("pk"))
    nodes = Node.objects.defer("spec").in_bulk({row.node_id for row in found})
    for row in found:
        row.node = nodes[row.node_id]
    return found


def slots(found: Sequence[Partition], now: datetime, chances: Chances | None = None) -> list[Slot]:
    """All of them. Who is in one that the pool may not empty - pinned, dedicated, part of a change - counts as busy.
    `chances`: None: as the planner learned them."""
    look = _looking(found, now, chances)
    return [look.slot(row) for row in found]


def is_half(row: Partition) -> bool:
    """Whether it is one of the two slots of a pooled model that was woken as a pair."""
    pooled = row.deployment is not None and row.deployment.mode == Deployment.Mode.POOLED
    return pooled and row.pool and row.role in OPPOSITE


def is_ours(row: Partition) -> bool:
    """Whether a model is there that the pool may make leave."""
    if row.deployment is None or row.pinned:
        return False
    return row.overflow or row.deployment.mode == Deployment.Mode.POOLED


class Round:
    """The pool as one look finds it, for all models that are asked for in it. Read when it is first needed, and again
    after `forget`; what is not empty only where somebody has to leave."""

    def __init__(self, now: datetime, chances: Chances | None = None, floors: Floors = tenancy.NONE) -> None:
        self.now, self._chances, self._floors = now, chances, floors
        self._found: dict[bool, _Found] = {}
        self._holdings: Holdings | None = None
        self._made: dict[object, object] = {}

    def is_owed(self, deployment: Deployment) -> bool:
        """Whether it is of a team that has less of the pool than its floor."""
        return bool(self._floors.gpus) and self._held().is_under(deployment.pk)

    def refusal(self, deployment: Deployment) -> str:
        """Which floor stands against its having a slot; "" where none does, or no slot would hold it anyway."""
        if not self._floors.gpus:
            return ""
        held = self._held()
        roles = deployment.pool_roles
        against = (held.refusal(slot, deployment.pk) for role in roles for _, slot in self._holding(deployment, role))
        return next((why for why in against if why), "")

    def empty(self, deployment: Deployment) -> list[tuple[Partition, Slot]]:
        """Of `holding`, those of nobody."""
        return self._open_to(deployment, [one for one in self._holding(deployment, empty=True) if _is_free(one[1])])

    def holding(self, deployment: Deployment, role: Role = Role.AGGREGATED) -> list[tuple[Partition, Slot]]:
        """Slots where nothing stands against the deployment's engine, but for who may be there now. Not those that the
        floors of other teams keep from it."""
        return self._open_to(deployment, self._holding(deployment, role))

    def halves(self, deployment: Deployment, role: Role, *, empty: bool) -> list[Half]:
        """Slots for one role of a pair; `empty`: only those of nobody. Floors say nothing of one alone."""
        return [
            Half(slot, replace(partition_view(row), engine_version=row.node.engine_version))
            for row, slot in self._holding(deployment, role, empty=empty)
            if not empty or _is_free(slot)
        ]

    def pair_refusal(self, deployment: Deployment, first: Slot, second: Slot) -> str:
        """Which floor stands against its having both; "" where none does."""
        return self._held().pair_refusal(first, second, deployment.pk) if self._floors.gpus else ""

    def once(self, make: Callable[[Round], T]) -> T:
        """What `make` finds, once until `forget`."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(T, self._made[make])

    def row(self, partition: int) -> Partition:
        """As it was found: of those that this look has told."""
        return next(found.rows[partition] for found in self._found.values() if partition in found.rows)

    def lendable(self, deployment: Deployment) -> list[tuple[Partition, Slot]]:
        """Of `holding`, each one that pooled models can do without."""
        found = self._look(empty=False)
        may = lending.lendable([slot for pk, slot in found.slots.items() if _is_pools_own(found.rows[pk])])
        fitting = [one for one in self._holding(deployment) if one[1].partition in may]
        return self._open_to(None, fitting)  # a floor is for pooled models, of its own team too

    def may_evict(self) -> bool:
        """Whether anybody may be made to leave: not while many nodes are silent at once."""
        found = self._look(empty=False)
        if found.is_braked is None:
            found.is_braked = brake.state(self.now).on
        return not found.is_braked

    def took(self, partition: Partition) -> None:
        """The slot was given away in this round, and `partition` is its row as that left it."""
        self._holdings = None
        for found in self._found.values():
            found.took(partition)

    def forget(self) -> None:
        """Somebody else was faster, or a slot was given back."""
        self._holdings = None
        self._made.clear()
        self._found.clear()

    def _open_to(
        self, deployment: Deployment | None, found: list[tuple[Partition, Slot]]
    ) -> list[tuple[Partition, Slot]]:
        if not self._floors.gpus:
            return found
        held = self._held()
        return [one for one in found if not held.refusal(one[1], deployment.pk if deployment else 0)]

    def _held(self) -> Holdings:
        if self._holdings is None:
            self._holdings = holdings(self._floors, self.now)
        return self._holdings

    def _holding(
        self, deployment: Deployment, role: Role = Role.AGGREGATED, *, empty: bool = False
    ) -> list[tuple[Partition, Slot]]:
        found, view = self._look(empty=empty), deployment_view(deployment)
        return [(found.rows[pk], slot) for pk, slot in found.slots.items() if found.holds(pk, view, role)]

    def _look(self, *, empty: bool) -> _Found:
        if empty not in self._found:
            found = rows(empty=empty)
            self._found[empty] = _Found(found, _looking(found, self.now, self._chances))
        return self._found[empty]


class _Found:
    def __init__(self, found: Sequence[Partition], look: _Look) -> None:
        self.rows = {row.pk: row for row in found}
        self.slots = {row.pk: look.slot(row) for row in found}
        self.is_braked: bool | None = None
        self._look, self._at = look, look.now.timestamp()
        self._views = {row.pk: partition_view(row) for row in found}
        # Its other GPUs and partitions say nothing of whether an engine may be placed on it.
        self._nodes = {row.node_id: node_view(row.node, gpus=(), partitions=()) for row in found}

    def holds(self, pk: int, view: DeploymentView, role: Role) -> bool:
        return not placement.check(
            self._views[pk],
            view,
            role,
            node=self._nodes[self.rows[pk].node_id],
            now=self._at,
            silent_after_s=settings.SILENT_AFTER_S,
        )

    def took(self, partition: Partition) -> None:
        if (row := self.rows.get(partition.pk)) is None:
            return
        row.deployment, row.role, row.generation = partition.deployment, partition.role, partition.generation
        row.overflow = partition.overflow
        self.slots[row.pk], self._views[row.pk] = self._look.slot(row), partition_view(row)


def _is_free(slot: Slot) -> bool:
    return slot.resident is None


def _is_pools_own(row: Partition) -> bool:
    """Neither lent nor somebody else's."""
    return row.deployment is None or (row.deployment.mode == Deployment.Mode.POOLED and not row.overflow)


def _looking(found: Sequence[Partition], now: datetime, chances: Chances | None) -> _Look:
    uses, keeps = pool_use.read(now), pool_keep.read(now)
    if chances is None:
        there = [row.deployment.name for row in found if row.deployment is not None]
        soon_s = START * keeps.usual_s  # as long as a start that is waited for is worth
        chances = pool_habits.chances(now, uses or {}, there, soon_s) if settings.POOL_PREDICT else {}
    halves: dict[int, list[Partition]] = {}
    for row in found:
        if is_half(row):
            halves.setdefault(row.deployment_id or 0, []).append(row)
    return _Look(uses, now, chances, keeps, frozenset(exclusive.held()), halves)


@dataclass(frozen=True, slots=True)
class _Look:
    uses: Mapping[str, Use] | None
    now: datetime
    chances: Chances
    keeps: Keeps
    held: frozenset[int]  # partitions of changes that are under way
    halves: Mapping[int, Sequence[Partition]]  # by deployment, the slots of its pair

    def slot(self, row: Partition) -> Slot:
        resident = None
        if row.deployment is not None:
            resident = self._resident(row, row.deployment)
        elif row.pk in self.held:
            resident = Resident(0, None, None, 0.0, 0.0)
        memory = [gpu.memory_bytes for gpu in row.gpus.all()]
        return Slot(row.pk, sum(memory), resident, clear=not has_process(row), gpus=len(memory))

    def _resident(self, row: Partition, there: Deployment) -> Resident:
        others = self._others(row)
        stays = not all(self._may_leave(one) for one in (row, *others))
        use = Use(None) if self.uses is None else self.uses.get(there.name, Use())
        resident_s = min(self._resident_s(one) for one in (row, *others))
        idle_s = min(resident_s, (self.now - use.last_at).total_seconds()) if use.last_at else resident_s
        return Resident(
            there.pk,
            None if stays else use.in_flight,
            None if stays or use.in_flight is None else max(0.0, idle_s),
            resident_s,
            self.keeps.of(there).keep_alive_s,
            there.priority,
            self.chances.get(there.name),
            row.overflow,
            tuple(other.pk for other in others),
            sum(len(other.gpus.all()) for other in others),
        )

    def _others(self, row: Partition) -> list[Partition]:
        """The rest of its pair: they leave together."""
        mine = self.halves.get(row.deployment_id or 0, ()) if is_half(row) else ()
        return [one for one in mine if one.pk != row.pk and one.deployment_id == row.deployment_id]

    def _may_leave(self, row: Partition) -> bool:
        return row.pk not in self.held and is_ours(row) and _ready_since(row) is not None

    def _resident_s(self, row: Partition) -> float:
        since = _ready_since(row)
        return 0.0 if since is None else max(0.0, (self.now - since).total_seconds())


def _ready_since(row: Partition) -> datetime | None:
    is_ready = row.phase == Phase.READY and row.observed_generation == row.generation
    return row.phase_since if is_ready else None
