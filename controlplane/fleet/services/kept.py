"""Slots kept from others for a pair that waits: whoever needs one slot would otherwise be faster to each that comes
free, and the pair never find two."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.domain import pool_pairs
from controlplane.fleet.models import Activation, Deployment
from controlplane.fleet.services.slots import Round
from workers.contract import Role

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
        if slots := _slots(one.deployment, look):
            return Kept(one.deployment, one.asked_at, slots)
    return None


def _slots(deployment: Deployment, look: Round) -> frozenset[int]:
    return pool_pairs.to_keep(
        look.halves(deployment, Role.PREFILL, empty=False),
        look.halves(deployment, Role.DECODE, empty=False),
        priority=deployment.priority,
        refusal=lambda first, second: look.pair_refusal(deployment, first, second),
    )
