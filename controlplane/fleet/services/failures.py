"""Starts that came to nothing, and engines that could not be kept up: what counts against trying once more."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from controlplane.fleet.models import Activation, Deployment, Partition

WITHIN = timedelta(hours=1)  # what failed before that counts no more
LOOK_AT = 20
GIVEN_AWAY = "its slot was given to something else"


def over(now: datetime) -> QuerySet[Activation]:
    """Activations that came to something lately, newest first, each with `over_at`: when it did, or when its engine
    broke."""
    lately = Q(ended_at__gt=now - WITHIN) | Q(broke_at__gt=now - WITHIN)
    found = Activation.objects.filter(lately, state__in=(Activation.State.READY, Activation.State.FAILED))
    return found.annotate(over_at=Coalesce("broke_at", "ended_at")).order_by("-over_at", "-pk")


def is_failure(row: Activation) -> bool:
    """It did not start, or could not be kept up."""
    return row.state == Activation.State.FAILED or row.broke_at is not None


def in_a_row(deployment: Deployment, now: datetime) -> list[Activation]:
    """The deployment's failures since it last went well, newest first, as `over` tells them. That a slot was given to
    something else meanwhile says nothing of the model, nor of the slot."""
    mine = over(now).filter(deployment=deployment).exclude(state=Activation.State.FAILED, message=GIVEN_AWAY)
    return list(takewhile(is_failure, mine[:LOOK_AT]))


def note_broken(deployment: Deployment, partition: Partition, why: str, now: datetime) -> None:
    """Its engine there was ready, and could not be kept up. The deployment's row is locked."""
    its = Q(partition=partition) | Q(partner=partition)
    ready = deployment.activations.filter(its, state=Activation.State.READY, broke_at__isnull=True)
    if (last := ready.order_by("-pk").first()) is not None:
        if last.partner_id is not None:
            why = f"{partition}: {why}"
        last.broke_at, last.message, last.partition, last.partner = now, why[:255], partition, None
        last.save(update_fields=["broke_at", "message", "partition", "partner"])
