"""Who may sleep in a slot: written when somebody leaves it, or comes back. Callers have locked the node."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.fleet.credentials import new_engine_key
from controlplane.fleet.models import Deployment, Node, Partition, Sleeper
from controlplane.fleet.publish import publish, sleeps
from workers.contract import Phase, Role

LEAVING = (Phase.DRAINING, Phase.STOPPING)
GONE_AFTER = timedelta(seconds=60)  # so long after it left, one that does not sleep will not any more


def change_places(partition: Partition, arriving: Deployment | None, *, sleep: bool) -> str:
    """Whoever is there goes to sleep where `sleep` and it may; without `sleep` nobody stays. The key of the engine that
    comes: its own where it sleeps there, so that it is the same engine."""
    there = Sleeper.objects.filter(partition=partition)
    if not (sleep and settings.POOL_SLEEPERS):
        if partition.pool and settings.POOL_SLEEPERS:
            there.delete()
        return new_engine_key() if arriving else ""
    bed = there.filter(deployment=arriving).first() if arriving else None
    if bed is not None:
        bed.delete()
    if may_sleep(partition):
        now, key = timezone.now(), partition.engine_key
        Sleeper.objects.create(partition=partition, deployment=partition.deployment, engine_key=key, left_at=now)
    beyond = list(there.order_by("-left_at", "-pk").values_list("pk", flat=True)[settings.POOL_SLEEPERS :])
    Sleeper.objects.filter(pk__in=beyond).delete()
    if arriving is None:
        return ""
    return bed.engine_key if bed is not None and bed.engine_key else new_engine_key()


def may_sleep(partition: Partition) -> bool:
    """Whether the engine that is there can be put to sleep: it serves, by all that is known. Its agent decides."""
    deployment = partition.deployment
    if deployment is None or partition.phase != Phase.READY or not partition.engine_key:
        return False
    return sleeps(partition, deployment, Role(partition.role)) is not None


def put_away(partition: Partition) -> None:
    """It is a slot no more, or becomes one: nobody sleeps there, and whether engines can is published anew."""
    Sleeper.objects.filter(partition=partition).delete()
    publish(partition.node)


def forget_gone(now: datetime) -> None:
    """Those that did not fall asleep, or do not sleep any more: what is desired follows what their agents could do."""
    gone = Sleeper.objects.filter(asleep_since=None, left_at__lt=now - GONE_AFTER)
    if not settings.POOL_SLEEPERS:  # switched off: nobody is in a spec any more
        gone = Sleeper.objects.all()
    for node_id in sorted(set(gone.order_by().values_list("partition__node", flat=True))):
        with transaction.atomic():
            node = Node.objects.select_for_update().get(pk=node_id)
            if node.observed_generation >= node.generation:  # else its agent may not have heard of them
                gone.filter(partition__node=node).exclude(partition__phase__in=LEAVING).delete()
                publish(node)
