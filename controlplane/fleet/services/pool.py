"""The pool: which partitions are its slots, and what it does without being asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor
from controlplane.domain import pool as rules
from controlplane.domain.tenancy import NONE, Floors
from controlplane.fleet import brake, owners, pool_use
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Activation, Partition, PoolAim
from controlplane.fleet.services import ahead, change_pool, exclusive, giving, rows, sleepers, slots, taking, waking
from controlplane.fleet.services.lending import AIM, to_keep_free
from controlplane.fleet.services.slots import Chances

log = structlog.get_logger(__name__)
UNWANTED_AFTER = timedelta(seconds=30)  # nobody has waited for so long: it is given up
PRUNE = 1000


@transaction.atomic
def set_pool(partition_id: int, *, pool: bool, actor: Actor, reason: str = "") -> Partition:
    """Set the partition aside for the pool, or take it back. What runs there stays until it is moved or released."""
    partition = rows.lock_partition(partition_id)
    owners.require_partition(actor, "partition.change", partition)
    exclusive.require_free([partition.pk])
    if partition.pool == pool:
        return partition
    change_pool.write(partition, pool, actor=actor, reason=reason)
    return partition


def aim(
    *, keep_alive_s: int, slots: int | None, reason: str, now: datetime, by_gpus: Mapping[int, int] | None = None
) -> None:
    """What the planner wants: so many slots held, in use or free (None: not known), `by_gpus` of a slot where they are
    not all of one, and the keep-alive of deployments that have none of their own. No event of its own: what is done
    about it is one."""
    sizes = {} if by_gpus is None or set(by_gpus) <= {1} else {str(gpus): count for gpus, count in by_gpus.items()}
    wanted = {"keep_alive_s": keep_alive_s, "slots": slots, "reason": reason[:255], "by_gpus": sizes}
    if not PoolAim.objects.filter(pk=AIM, **wanted).exists():
        PoolAim.objects.update_or_create(pk=AIM, defaults=wanted | {"at": now})


def sweep(
    now: datetime, *, free: int | None = None, chances: Chances | None = None, floors: Floors = NONE
) -> list[str]:
    """Note what became of activations, give back slots whose engines do not come back, and empty slots so that `free`
    are there before anybody asks (None: as the planner aims, and at least as many as configured), and the GPUs that
    teams are owed. Wake who is due. Names who was made to leave. While many nodes are silent at once nobody is."""
    for deployment_id in _starting():
        try:
            waking.look_after(deployment_id, now)
        except FleetError as error:
            log.info("an activation cannot be looked at just now", deployment=deployment_id, why=str(error))
    _give_up(now)
    sleepers.forget_gone(now)
    if brake.state(now).on:
        return []
    found = slots.rows()
    if giving.give_back(found, now):
        found = slots.rows()
    views = slots.slots(found, now, chances)
    sizes, least = to_keep_free(views) if free is None else ({}, free)
    stay_s = settings.POOL_MIN_RESIDENCE_S
    back = rules.to_take_back(views, min_residence_s=stay_s)
    by_id, lent = {row.pk: row for row in found}, frozenset[int]().union(*(choice.emptied for choice in back))
    found_idle = rules.to_free_by_size(views, free=sizes, at_least=least, min_residence_s=stay_s)
    leaving = [choice for choice in found_idle if choice.slot not in lent]
    leaving += _for_floors(views, [*back, *leaving], floors, now)
    ahead.look(views, held=max(least, sum(sizes.values())), now=now, floors=floors)
    left = [_empty(by_id, choice, "taken back") for choice in back]
    left += [_empty(by_id, choice, "kept free for whoever is asked for next") for choice in leaving]
    return [name for name in left if name]


def _for_floors(
    views: Sequence[rules.Slot], leaving: Sequence[rules.Choice], floors: Floors, now: datetime
) -> list[rules.Choice]:
    """Who leaves, beside those who do anyway, for what teams are owed."""
    if not floors.gpus:
        return []
    gone = frozenset[int]().union(*(choice.emptied for choice in leaving))
    size = sum(view.gpus for view in views if view.partition in gone)
    rest = [view for view in views if view.partition not in gone]
    owed = slots.holdings(floors, now).owed() - size
    return rules.to_free_gpus(rest, owed, most=settings.POOL_EMPTIED, min_residence_s=settings.POOL_MIN_RESIDENCE_S)


def prune(now: datetime) -> None:
    """Forget activations past their keep, a bounded number each time."""
    old = Activation.objects.filter(ended_at__lt=now - timedelta(days=settings.POOL_KEEP_DAYS))
    Activation.objects.filter(pk__in=list(old.order_by("pk").values_list("pk", flat=True)[:PRUNE])).delete()
    pool_use.prune(now)


def _starting() -> Sequence[int]:
    found = Activation.objects.filter(state=Activation.State.STARTING).order_by("pk")
    return list(found.values_list("deployment_id", flat=True))


def _give_up(now: datetime) -> None:
    gone = Activation.objects.filter(state=Activation.State.WAITING, wanted_at__lt=now - UNWANTED_AFTER)
    gone.update(state=Activation.State.GIVEN_UP, ended_at=now)


def _empty(found: Mapping[int, Partition], choice: rules.Choice, why: str) -> str | None:
    """Release all that the model leaves, unless something of it has changed since it was looked at."""
    seen = [found[pk] for pk in sorted(choice.emptied)]
    try:
        with transaction.atomic():
            deployment = rows.lock_deployment(choice.evicted or 0)
            locked = rows.lock_partitions(choice.emptied)
            now = {pk: (row.deployment_id, row.generation) for pk, row in locked.items()}
            if now != {row.pk: (choice.evicted, row.generation) for row in seen}:
                return None
            exclusive.require_free(choice.emptied)
            taking.release(list(locked.values()), dict.fromkeys(locked, f"{why}; {choice.reason}"), sleep=True)
            return deployment.name
    except FleetError as error:
        log.info("a slot cannot be emptied just now", slots=list(map(str, seen)), why=str(error))
        return None
