"""Slots that their model has nothing of any more are given back: the next request for it wakes it in others. A pair
goes as a whole, and what is left of one goes too: half a pair is nothing to keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import structlog
from django.conf import settings
from django.db import transaction

from controlplane.domain.pairing import OPPOSITE
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Activation, Deployment, Partition
from controlplane.fleet.services import exclusive, failures, rows, taking, verdicts
from controlplane.fleet.services.slots import is_half, is_ours
from workers.contract import Phase

log = structlog.get_logger(__name__)
ALONE = "the other half of its pair is gone"


def give_back(found: Sequence[Partition], now: datetime) -> int:
    """Of all slots, those whose engines do not come back, with the other half where they are of a pair; and halves that
    have been alone for a while. How many."""
    starting = _starting()  # what becomes of these is for `waking` to say
    mine = [row for row in found if row.pk not in starting and is_ours(row)]
    alone = _alone([row for row in mine if is_half(row)], now)
    lost = [row for row in mine if verdicts.gone(row, now) or verdicts.broken(row, now) or row.pk in alone]
    if not lost:
        return 0
    units, held = {tuple(one.pk for one in _unit(row, mine)): _unit(row, mine) for row in lost}, exclusive.held()
    return sum(_given_back(unit, now) for keys, unit in units.items() if not held.intersection(keys))


def clear(deployment: Deployment, now: datetime) -> bool:
    """Give back what it has of a pair, where it is asked for and no whole one serves it or will: so it never has more
    than one. Whether there was anything. In a transaction, with its row locked."""
    seen = [row for row in deployment.partitions.select_related("deployment", "node") if is_half(row) and is_ours(row)]
    if not seen:
        return False
    mine = list(rows.lock_partitions([row.pk for row in seen]).values())
    exclusive.require_free([row.pk for row in mine])
    return _release(deployment, mine, now) > 0


def _starting() -> set[int | None]:
    found = Activation.objects.filter(state=Activation.State.STARTING).values_list("partition_id", "partner_id")
    return {pk for both in found for pk in both}


def _alone(halves: Sequence[Partition], now: datetime) -> set[int]:
    """Those that have been ready for so long without another that nobody is just assigning them one by one."""
    if not halves:
        return set()
    theirs = Partition.objects.filter(deployment__in={row.deployment_id for row in halves})
    there = set(theirs.order_by().values_list("deployment_id", "role"))
    return {row.pk for row in halves if _is_alone(row, there, now)}


def _is_alone(row: Partition, there: Collection[tuple[int | None, str]], now: datetime) -> bool:
    if (row.deployment_id, OPPOSITE.get(row.role)) in there or row.phase != Phase.READY or row.phase_since is None:
        return False
    return (now - row.phase_since).total_seconds() >= settings.POOL_MIN_RESIDENCE_S


def _unit(row: Partition, mine: Sequence[Partition]) -> list[Partition]:
    """What goes together with it."""
    if not is_half(row):
        return [row]
    return [one for one in mine if is_half(one) and one.deployment_id == row.deployment_id]


def _given_back(seen: Sequence[Partition], now: datetime) -> int:
    """Unless it is well again by now, or something else."""
    try:
        with transaction.atomic():
            deployment = rows.lock_deployment(seen[0].deployment_id or 0)
            locked = rows.lock_partitions([row.pk for row in seen])
            if not all(_is_as_seen(locked[row.pk], row) for row in seen):
                return 0
            alone = _alone([row for row in locked.values() if is_half(row)], now)
            if not alone and not any(_why(row, now) for row in locked.values()):
                return 0
            exclusive.require_free(locked.keys())
            return _release(deployment, list(locked.values()), now)
    except FleetError as error:
        log.info("a slot cannot be given back just now", slots=[str(row) for row in seen], why=str(error))
        return 0


def _is_as_seen(now: Partition, seen: Partition) -> bool:
    same = (now.deployment_id, now.generation) == (seen.deployment_id, seen.generation)
    return same and is_ours(now)


def _why(row: Partition, now: datetime) -> str | None:
    return verdicts.gone(row, now) or verdicts.broken(row, now)


def _release(deployment: Deployment, locked: Sequence[Partition], now: datetime) -> int:
    """Note what broke, and let all go."""
    whys = {row.pk: _why(row, now) for row in locked}
    for row in locked:
        if not verdicts.gone(row, now) and (broken := verdicts.broken(row, now)) is not None:
            failures.note_broken(deployment, row, broken, now)
    first = next((f"{row}: {whys[row.pk]}" for row in locked if whys[row.pk]), "")
    other = f"the other half of its pair does not come back: {first}" if first else ALONE
    reasons = {pk: f"its engine does not come back: {why}" if why else other for pk, why in whys.items()}
    taking.release(locked, reasons)
    log.warning("slots were given back", deployment=deployment.name, slots=list(map(str, locked)), why=first or ALONE)
    return len(locked)
