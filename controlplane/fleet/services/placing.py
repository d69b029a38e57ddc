"""Where a model that is asked for goes, and who leaves for it. Nothing is written, but by whoever lends: its turn."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from django.conf import settings

from controlplane.domain import pool as rules
from controlplane.domain import pool_pairs
from controlplane.domain.pool_pairs import Half
from controlplane.fleet import sleeping, weights
from controlplane.fleet.models import Activation, Deployment, Partition
from controlplane.fleet.services import kept, lending
from controlplane.fleet.services.asks import Ask
from controlplane.fleet.services.slots import Round
from workers.contract import Role

OVERFLOW = Activation.Cause.OVERFLOW
MOST = 2**31  # a priority past every other
NONE_TO_SPARE = "no slot that holds it is left beyond those held for pooled models"


@dataclass(frozen=True, slots=True)
class Plan:
    """Slots to take, as they were seen, with the role that each shall have, and further ones that those leave who leave
    one of these. Nothing to take: nowhere. `reason` is for people."""

    reason: str
    takes: tuple[tuple[Partition, Role], ...] = ()
    leaving: tuple[Partition, ...] = ()
    woken: bool = False  # its engine sleeps there

    @property
    def evicted(self) -> list[Deployment]:
        found = {row.deployment_id: row.deployment for row, _ in self.takes if row.deployment is not None}
        return [deployment for deployment in found.values() if deployment is not None]


@dataclass(frozen=True, slots=True)
class Bars:
    """Slots where it did not start lately, and those that it may not take, with the reason."""

    failed: Collection[int | None] = ()
    kept: Collection[int] = ()
    why_kept: str = ""


def find(deployment: Deployment, ask: Ask, look: Round, failed: Collection[int | None], asked_at: datetime) -> Plan:
    """`failed`: slots where it did not start lately. `asked_at`: when somebody first asked for it."""
    bars = Bars(failed)
    waiting = look.once(kept.look_for)
    if waiting and waiting.is_against(deployment, _priority(deployment, ask, look), asked_at):
        bars = Bars(failed, waiting.slots, waiting.why)
    if ask.cause == OVERFLOW:
        return _single(deployment, ask, look, bars)
    plan = _pair(deployment, ask, look, bars) if deployment.is_pair else _single(deployment, ask, look, bars)
    return plan if plan.takes else replace(plan, reason=look.refusal(deployment) or plan.reason)


def _single(deployment: Deployment, ask: Ask, look: Round, bars: Bars) -> Plan:
    there = _fitting(deployment, ask, look, bars)
    fitting = [one for one in there if one[0].pk not in bars.kept]
    if there and not fitting:
        return Plan(bars.why_kept)
    near = _near(deployment) if sum(slot.resident is None for _, slot in fitting) > 1 else frozenset()
    views = [replace(slot, near=row.node_id in near, failed=row.pk in bars.failed) for row, slot in fitting]
    choice = rules.choose(
        views, priority=_priority(deployment, ask, look), min_residence_s=settings.POOL_MIN_RESIDENCE_S
    )
    if choice.slot is None:
        return Plan(NONE_TO_SPARE if ask.cause == OVERFLOW else choice.reason)
    if choice.evicted is not None and not _may_evict(ask, look):
        return Plan("no slot that holds it is free")
    seen, slot = next(one for one in fitting if one[1].partition == choice.slot)
    return Plan(choice.reason, ((seen, Role.AGGREGATED),), tuple(look.row(pk) for pk in choice.also), slot.asleep)


def _pair(deployment: Deployment, ask: Ask, look: Round, bars: Bars) -> Plan:
    """Two free slots, or two of which some are left by others."""
    plan = _two(deployment, ask, look, bars, empty=True)
    if plan.takes or not _may_evict(ask, look):
        return plan
    return _two(deployment, ask, look, bars, empty=False)


def _two(deployment: Deployment, ask: Ask, look: Round, bars: Bars, *, empty: bool) -> Plan:
    near = _near(deployment)
    prefill, decode = (
        [_told(half, look.row(half.slot.partition).node_id in near, bars.failed)
         for half in look.halves(deployment, role, empty=empty) if half.slot.partition not in bars.kept]
        for role in (Role.PREFILL, Role.DECODE)
    )  # fmt: skip
    found = pool_pairs.choose(
        prefill,
        decode,
        priority=_priority(deployment, ask, look),
        min_residence_s=settings.POOL_MIN_RESIDENCE_S,
        evict=not empty,
        refusal=lambda first, second: look.pair_refusal(deployment, first, second),
    )
    takes = tuple((look.row(pk), role) for pk, role in found.halves)
    return Plan(found.reason, takes, tuple(look.row(pk) for pk in found.leaving))


def _told(half: Half, near: bool, failed: Collection[int | None]) -> Half:
    return replace(half, slot=replace(half.slot, near=near, failed=half.slot.partition in failed))


def _fitting(deployment: Deployment, ask: Ask, look: Round, bars: Bars) -> list[tuple[Partition, rules.Slot]]:
    if ask.cause != OVERFLOW:
        if beds := _beds(deployment, ask, look):
            return beds
        return [one for one in look.empty(deployment) if one[0].pk not in bars.kept] or look.holding(deployment)
    lending.take_turns()
    look.forget()  # what others took meanwhile
    return look.lendable(deployment)


def _beds(deployment: Deployment, ask: Ask, look: Round) -> list[tuple[Partition, rules.Slot]]:
    """Slots in which its engine sleeps, and all others that it may be given: only where it sleeps somewhere."""
    if not (asleep := sleeping.beds(deployment)):
        return []
    found = look.holding(deployment)
    if not _may_evict(ask, look):
        found = [one for one in found if one[1].resident is None]
    return [(row, replace(slot, asleep=row.pk in asleep)) for row, slot in found]


def _near(deployment: Deployment) -> Collection[int]:
    """Nodes that hold the weights."""
    return weights.nodes_holding(deployment.model)


def _priority(deployment: Deployment, ask: Ask, look: Round) -> int:
    """A floor is a right: whoever is idle beyond their own leaves for it, of whatever priority."""
    return MOST if ask.cause != OVERFLOW and look.is_owed(deployment) else deployment.priority


def _may_evict(ask: Ask, look: Round) -> bool:
    return ask.cause != Activation.Cause.AHEAD and look.may_evict()
