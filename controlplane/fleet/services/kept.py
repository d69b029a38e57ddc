"""Slots kept from others for a pair that waits: whoever needs one slot would otherwise be faster to each that comes
free, and the pair never find two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError

from controlplane.domain import pool_pairs
from controlplane.fleet.models import Activation, Deployment
from controlplane.fleet.services import failures
from controlplane.fleet.services.slots import Round
from workers.contract import Role

log = structlog.get_logger(__name__)
KEEP = timedelta(seconds=90)  # then others have their turn, until it is asked for anew
WANTED = timedelta(seconds=15)  # since somebody was last known to wait


@dataclass(frozen=True, slots=True)
class Kept:
    """For the pair that has waited longest, from who came later and is of no higher priority."""

    deployment: Deployment
    asked_at: datetime
    slots: frozenset[int]

    @property
    def why(self) -> str:
        return f"what holds it is kept for {self.deployment.name}, which waits for two slots"

    def is_against(self, deployment: Deployment, priority: int, asked_at: datetime) -> bool:
        return (
            deployment.pk != self.deployment.pk and priority <= self.deployment.priority and asked_at >= self.asked_at
        )


def look_for(look: Round) -> Kept | None:
    waiting = Activation.objects.filter(
        state=Activation.State.WAITING, cause=Activation.Cause.REQUEST, asked_at__gt=look.now - KEEP,
        wanted_at__gt=look.now - WANTED, deployment__mode=Deployment.Mode.POOLED,
        deployment__pool_shape=Deployment.PoolShape.PAIR,
    )  # fmt: skip
    for one in waiting.select_related("deployment__model").order_by("asked_at", "pk"):
        try:
            slots = _slots(one.deployment, look)
        except DatabaseError:
            raise
        except Exception:  # whoever asks for another model is not to suffer from it
            log.exception("what is to be kept for a pair cannot be told", deployment=one.deployment.name)
            continue
        if slots:
            return Kept(one.deployment, one.asked_at, slots)
    return None


def _slots(deployment: Deployment, look: Round) -> frozenset[int]:
    """As it may take them itself: not where it failed lately and somebody has to leave; while nobody may be made to
    leave, free ones alone."""
    failed = {row.partition_id for row in failures.in_a_row(deployment, look.now)}
    empty = not look.may_evict()
    prefill, decode = (
        [
            replace(half, slot=replace(half.slot, failed=half.slot.partition in failed))
            for half in look.halves(deployment, role, empty=empty)
        ]
        for role in (Role.PREFILL, Role.DECODE)
    )
    return pool_pairs.to_keep(
        prefill,
        decode,
        priority=deployment.priority,
        refusal=lambda first, second: look.pair_refusal(deployment, first, second),
    )
