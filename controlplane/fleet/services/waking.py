"""Wakes pooled deployments, and dedicated ones that overflow: gives each that is asked for a slot, and says how far it
is.

`wake` is asked again and again for as long as somebody waits, by every gateway; whatever it decided lies in the rows,
so that it does not matter who asks next, or whether anybody does. One look takes one step of one deployment, with that
deployment's row locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain import pool as rules
from controlplane.domain import tenancy
from controlplane.domain.health import is_silent
from controlplane.domain.tenancy import Floors
from controlplane.fleet import starts, weights
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Activation, Deployment, Partition
from controlplane.fleet.services import desired, exclusive, failures, lending, rows
from controlplane.fleet.services.asks import Ask, Standing, State
from controlplane.fleet.services.slots import Chances, Round
from controlplane.fleet.services.verdicts import broken, fault, gone, is_ready
from workers.contract import Role

log = structlog.get_logger(__name__)
ACTOR = Actor.system("pool")
OVERFLOW = Activation.Cause.OVERFLOW
WORDS = {
    Activation.Cause.REQUEST: "asked for",
    Activation.Cause.AHEAD: "ahead of requests",
    OVERFLOW: "overflow",
}
OPEN = (Activation.State.WAITING, Activation.State.STARTING)
WANTED_EVERY = timedelta(seconds=5)  # how often it is written that somebody still waits
MOST = 2**31  # a priority past every other
LOOKS = 3  # when another model was faster to a slot


def wake(
    asks: Mapping[str, Ask],
    *,
    now: datetime | None = None,
    chances: Chances | None = None,
    floors: Floors = tenancy.NONE,
) -> dict[str, Standing]:
    """By name. Idempotent: of an activation under way it only tells. A deployment at fault spoils no other's."""
    look = Round(now or timezone.now(), chances, floors)
    may = Q(mode=Deployment.Mode.POOLED) | Q(overflow=True)
    known = dict(Deployment.objects.filter(may, name__in=asks).values_list("name", "pk"))
    return {
        name: _wake(known[name], ask, look) if name in known else Standing(State.ABSENT) for name, ask in asks.items()
    }


def look_after(deployment_id: int, now: datetime) -> None:
    """Note what became of the open activation, without asking for anything."""
    with transaction.atomic():
        deployment = rows.lock_deployment(deployment_id)
        if (current := _open(deployment)) is not None and current.state == Activation.State.STARTING:
            _judge(current, now)


def _wake(deployment_id: int, ask: Ask, look: Round) -> Standing:
    try:
        if (standing := _locked_step(deployment_id, ask, look)) is None:
            # Its slot was given back in a transaction of its own: one locks one node at most.
            look.forget()
            standing = _locked_step(deployment_id, ask, look)
        return standing or Standing(State.FAILED)
    except FleetError as error:  # removed, or moved by a change, since we looked: the next look sees that
        look.forget()
        log.info("a model cannot be woken just now", deployment=deployment_id, why=str(error))
        return Standing(State.WAITING, message=str(error)[:255])


@transaction.atomic
def _locked_step(deployment_id: int, ask: Ask, look: Round) -> Standing | None:
    deployment = rows.lock_deployment(deployment_id)
    if deployment.mode == Deployment.Mode.DEDICATED:
        ask = replace(ask, cause=OVERFLOW, why=ask.why or _why_overflow(deployment, ask.waiters, look.now))
    return _Look(deployment, ask, look.now, look).step()


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at one deployment, whose row is locked."""

    deployment: Deployment
    ask: Ask
    now: datetime
    round: Round

    def step(self) -> Standing | None:
        """None: a start has just failed."""
        current = _open(self.deployment)
        if current is not None and current.state == Activation.State.STARTING:
            standing = _judge(current, self.now)
            if standing is not None:
                self._note(current)
            return standing
        if (served := _served(self.deployment, self.now)) is not None:
            return served
        failed = failures.in_a_row(self.deployment, self.now)
        rest = rules.rest_s(len(failed)) - (self.now - failed[0].over_at).total_seconds() if failed else 0.0
        if rest > 0:
            return Standing(State.FAILED, rest, failed[0].message)
        return self._place(current, {row.partition_id for row in failed})

    def _place(self, current: Activation | None, failed: set[int | None]) -> Standing:
        """Give it a slot, or note that it waits for one."""
        for _ in range(LOOKS):
            fitting = self._fitting()
            choice = self._choose(self._with_near(fitting), failed)
            if choice.slot is None:
                return self._wait(current, self._refusal() or choice.reason)
            seen = next(row for row, slot in fitting if slot.partition == choice.slot)
            left = seen.deployment
            if (partition := self._take(seen, choice)) is not None:
                return self._started(current, partition, choice, left)
            self.round.forget()
        return self._wait(current, "other models took the slots first")

    def _fitting(self) -> list[tuple[Partition, rules.Slot]]:
        if self.ask.cause != OVERFLOW:
            return self.round.empty(self.deployment) or self.round.holding(self.deployment)
        lending.take_turns()
        self.round.forget()  # what others took meanwhile
        return self.round.lendable(self.deployment)

    def _is_owed(self) -> bool:
        return self.ask.cause != OVERFLOW and self.round.is_owed(self.deployment)

    def _refusal(self) -> str:
        return "" if self.ask.cause == OVERFLOW else self.round.refusal(self.deployment)

    def _with_near(self, fitting: list[tuple[Partition, rules.Slot]]) -> list[rules.Slot]:
        """With whose node holds the weights: asked only where it decides."""
        if sum(slot.resident is None for _, slot in fitting) < 2:
            return [slot for _, slot in fitting]
        near = weights.nodes_holding(self.deployment.model)
        return [replace(slot, near=row.node_id in near) for row, slot in fitting]

    def _choose(self, fitting: list[rules.Slot], failed: set[int | None]) -> rules.Choice:
        views = [replace(view, failed=view.partition in failed) for view in fitting]
        # A floor is a right: whoever is idle beyond their own leaves for it, of whatever priority.
        priority = MOST if self._is_owed() else self.deployment.priority
        choice = rules.choose(views, priority=priority, min_residence_s=settings.POOL_MIN_RESIDENCE_S)
        if choice.slot is None and self.ask.cause == OVERFLOW:
            return rules.Choice(None, None, "no slot that holds it is left beyond those held for pooled models")
        if choice.evicted is None or (self.ask.cause != Activation.Cause.AHEAD and self.round.may_evict()):
            return choice
        return rules.Choice(None, None, "no slot that holds it is free")

    def _take(self, seen: Partition, choice: rules.Choice) -> Partition | None:
        """The slot, now this deployment's; None where somebody was faster. Whoever leaves it ends its requests."""
        partition = rows.lock_partition(seen.pk)
        now = (partition.pool, partition.deployment_id, partition.generation)
        if now != (True, seen.deployment_id, seen.generation):
            return None
        exclusive.require_free([partition.pk])
        reason, lent = f"{WORDS[self.ask.cause]}; {self.ask.because(choice)}", self.ask.cause == OVERFLOW
        desired.write(
            partition, self.deployment, Role.AGGREGATED.value, actor=ACTOR, reason=reason[:500], overflow=lent
        )
        self.round.took(partition)
        return partition

    def _started(
        self, current: Activation | None, partition: Partition, choice: rules.Choice, left: Deployment | None
    ) -> Standing:
        row = current or Activation(deployment=self.deployment, cause=self.ask.cause, asked_at=self.now)
        row.state, row.partition, row.slot = Activation.State.STARTING, partition, str(partition)[:120]
        row.evicted, row.reason = left.name if left else "", self.ask.because(choice)[:255]
        row.waiters, row.wanted_at, row.placed_at = max(row.waiters, self.ask.waiters), self.now, self.now
        row.save()
        return Standing(State.STARTING, starts.start_s(self.deployment.model, partition.node))

    def _wait(self, current: Activation | None, reason: str) -> Standing:
        if not self.ask.waiters:
            return Standing(State.WAITING, message=reason)
        if current is None:
            Activation.objects.create(
                deployment=self.deployment, cause=self.ask.cause, state=Activation.State.WAITING,
                reason=(f"{self.ask.why}; {reason}" if self.ask.why else reason)[:255], waiters=self.ask.waiters,
                asked_at=self.now, wanted_at=self.now,
            )  # fmt: skip
        else:
            self._note(current)
        return Standing(State.WAITING, message=reason)

    def _note(self, current: Activation) -> None:
        """That somebody still waits: seldom, for it is asked several times a second."""
        waiters, now = self.ask.waiters, self.now
        if waiters > current.waiters or now - current.wanted_at >= WANTED_EVERY:
            current.waiters, current.wanted_at = max(current.waiters, waiters), now
            current.save(update_fields=["waiters", "wanted_at"])


def _judge(current: Activation, now: datetime) -> Standing | None:
    """How far a start is; None where it failed, which is then written and its slot free again."""
    partition = _partition(current)
    if partition is not None and is_ready(partition, now):
        _end(current, Activation.State.READY, now)
        return Standing(State.READY)
    why = fault(current, partition, now)
    if why is None:
        assert partition is not None
        usual = starts.start_s(current.deployment.model, partition.node)
        spent = (now - (current.placed_at or now)).total_seconds()
        return Standing(State.STARTING, None if usual is None else max(1.0, usual - spent))
    log.warning("a model could not be woken", deployment=current.deployment.name, slot=current.slot, why=why)
    if partition is not None and partition.deployment_id == current.deployment_id:
        locked = rows.lock_partition(partition.pk)
        if locked.deployment_id == current.deployment_id:
            exclusive.require_free([locked.pk])
            desired.write(locked, None, "", actor=ACTOR, reason=f"it did not start: {why}"[:255])
    _end(current, Activation.State.FAILED, now, why)
    return None


def _end(current: Activation, state: Activation.State, now: datetime, why: str = "") -> None:
    current.state, current.ended_at, current.message = state, now, why[:255]
    current.save(update_fields=["state", "ended_at", "message"])


def _served(deployment: Deployment, now: datetime) -> Standing | None:
    """Where it has partitions without our doing: an operator's, or one whose engine starts again. Those where no engine
    will come are no reason to wait. Of a dedicated one only its slot counts: its own engines are full."""
    mine = deployment.partitions.select_related("node").prefetch_related("gpus")
    if deployment.mode == Deployment.Mode.DEDICATED:
        mine = mine.filter(overflow=True)
    alive = [row for row in mine if not _is_lost(row, now)]
    if any(is_ready(row, now) for row in alive):
        return Standing(State.READY)
    return Standing(State.STARTING) if alive else None


def _why_overflow(deployment: Deployment, waiters: int, now: datetime) -> str:
    own = deployment.partitions.filter(overflow=False).select_related("node")
    if any(is_ready(row, now) for row in own):
        return f"its own engines are full, and {waiters} request{'s wait' if waiters != 1 else ' waits'}"
    return "none of its own engines is ready"


def _is_lost(row: Partition, now: datetime) -> bool:
    heard = row.node.last_seen.timestamp() if row.node.last_seen else None
    silent = is_silent(heard, now.timestamp(), settings.SILENT_AFTER_S)
    return silent or row.node.draining or row.node.revoked or bool(gone(row, now) or broken(row, now))


def _open(deployment: Deployment) -> Activation | None:
    row: Activation | None = deployment.activations.filter(state__in=OPEN).first()
    if row is not None:
        row.deployment = deployment
    return row


def _partition(current: Activation) -> Partition | None:
    found = Partition.objects.select_related("node").prefetch_related("gpus")
    return found.filter(pk=current.partition_id).first()


__all__ = ["ACTOR", "OPEN", "Ask", "Standing", "State", "look_after", "wake"]
