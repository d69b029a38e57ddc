"""The pool as people and programs see it: who is in which slot, who waits, what became of the last ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings
from django.db.models import Count, Q

from controlplane.domain.health import partition_status
from controlplane.domain.pool import Resident
from controlplane.fleet import pool_keep
from controlplane.fleet.facts import partition_view
from controlplane.fleet.models import Activation, Deployment, Partition, Sleeper
from controlplane.fleet.services import slots
from controlplane.fleet.services.waking import OPEN

LAST = timedelta(hours=24)


class Place(StrEnum):
    """What a slot is for the pool."""

    FREE = "free"
    STARTING = "starting"
    ACTIVE = "active"  # its model has a request in flight, or had one within its keep-alive
    IDLE = "idle"  # may be made to leave
    LENT = "lent"  # to a dedicated deployment, for what its own engines have no room for
    OTHER = "other"  # not the pool's to empty: dedicated, pinned, part of a change
    UNKNOWN = "unknown"  # its node or its gateways are silent
    UNUSABLE = "unusable"  # its node is silent, or a GPU is lost


@dataclass(frozen=True, slots=True)
class SlotNow:
    partition: Partition
    place: Place
    memory_bytes: int
    status: str
    resident: Resident | None
    keep_why: str  # the keep-alive; "" where no deployment is there
    lent_why: str = ""
    pair_with: Sequence[str] = ()  # the slot of the other half, where its model is woken as a pair
    sleepers: Sequence[Sleeper] = ()  # those that sleep there, the last to leave first

    @property
    def gpus(self) -> list[int]:
        return sorted(gpu.index for gpu in self.partition.gpus.all())


@dataclass(frozen=True, slots=True)
class Pool:
    slots: list[SlotNow]
    waiting: list[Activation]  # for a slot, or for their engine; longest first

    def count(self, *places: Place) -> int:
        return sum(slot.place in places for slot in self.slots)

    @property
    def asleep(self) -> int:
        return sum(len(slot.sleepers) for slot in self.slots)

    def models(self, place: Place) -> int:
        """That are there so: one that is woken as a pair has two slots."""
        return len({slot.partition.deployment_id for slot in self.slots if slot.place is place})


@dataclass(frozen=True, slots=True)
class Tally:
    """Of the activations that ended in the last day."""

    ready: int
    failed: int
    given_up: int
    ahead: int  # of those ready: woken before anybody asked
    came: int  # of these: asked for within a keep-alive


def look(now: datetime) -> Pool:
    """As it is now, in a fixed number of queries."""
    found = slots.rows()
    views = slots.slots(found, now)
    waiting = Activation.objects.filter(state__in=OPEN).order_by("asked_at")
    waiting = waiting.select_related("deployment", "partition", "partner")
    at, keeps, lent, asleep = time.time(), pool_keep.read(now), _lent_why(found), _asleep()
    shown, names = [], {row.pk: str(row) for row in found}
    statuses = {row.pk: partition_status(partition_view(row), at, settings.SILENT_AFTER_S).value for row in found}
    for row, view in zip(found, views, strict=True):
        status = statuses[row.pk]
        why = keeps.of(row.deployment).why if row.deployment else ""
        others = view.resident.others if view.resident else ()
        place = _place(row, view.resident, {status, *(statuses[pk] for pk in others)})
        pair_with = [names[pk] for pk in others]
        lent_why, beds = lent.get(row.pk, ""), asleep.get(row.pk, ())
        shown.append(SlotNow(row, place, view.memory_bytes, status, view.resident, why, lent_why, pair_with, beds))
    return Pool(sorted(shown, key=lambda slot: (slot.partition.node.name, slot.partition.name)), list(waiting))


def lent_slots() -> dict[str, int]:
    """How many each dedicated deployment has that may have any."""
    count = Count("partitions", filter=Q(partitions__overflow=True))
    rows = Deployment.objects.filter(mode=Deployment.Mode.DEDICATED).annotate(lent=count)
    return dict(rows.filter(Q(overflow=True) | Q(lent__gt=0)).order_by("name").values_list("name", "lent"))


def sleepers_by_level() -> dict[int, int]:
    rows = Sleeper.objects.filter(asleep_since__isnull=False).order_by().values_list("level").annotate(Count("pk"))
    return {1: 0, 2: 0} | dict(rows)


def names() -> set[str]:
    """Of all pooled deployments."""
    pooled = Deployment.objects.filter(mode=Deployment.Mode.POOLED)
    return set(pooled.order_by().values_list("name", flat=True))


def tally(now: datetime) -> Tally:
    states = Activation.State
    ahead = Q(state=states.READY, cause=Activation.Cause.AHEAD)
    found = Activation.objects.filter(ended_at__gt=now - LAST).aggregate(
        ready=Count("pk", filter=Q(state=states.READY)),
        failed=Count("pk", filter=Q(state=states.FAILED)),
        given_up=Count("pk", filter=Q(state=states.GIVEN_UP)),
        ahead=Count("pk", filter=ahead),
        came=Count("pk", filter=ahead & Q(came_at__isnull=False)),
    )
    return Tally(**found)


def _asleep() -> dict[int, list[Sleeper]]:
    """By slot: those that sleep there."""
    found: dict[int, list[Sleeper]] = {}
    for row in Sleeper.objects.filter(asleep_since__isnull=False).select_related("deployment"):
        found.setdefault(row.partition_id, []).append(row)
    return found


def _lent_why(found: Sequence[Partition]) -> dict[int, str]:
    """By slot that is lent: why it was."""
    lent = {row.pk: row.deployment_id for row in found if row.overflow}
    if not lent:
        return {}
    rows = Activation.objects.filter(cause=Activation.Cause.OVERFLOW, partition__in=lent, placed_at__isnull=False)
    last = rows.order_by("pk").values_list("partition", "deployment", "reason")
    return {partition: reason for partition, deployment, reason in last if lent[partition] == deployment}


def _place(row: Partition, resident: Resident | None, statuses: set[str]) -> Place:
    """`statuses`: its own, and of a pair that of the other half too: they are ready together."""
    if "lost" in statuses or any(not gpu.present or gpu.health == "lost" for gpu in row.gpus.all()):
        return Place.UNUSABLE
    if row.deployment is None:
        return Place.FREE
    if not slots.is_ours(row) or resident is None:
        return Place.OTHER
    if statuses != {"ready"}:
        return Place.STARTING
    if resident.in_flight is None:
        return Place.UNKNOWN
    if resident.lent:
        return Place.LENT
    return Place.ACTIVE if resident.is_kept else Place.IDLE
