"""Wakes pooled deployments, and dedicated ones that overflow: gives each that is asked for its slots, and says how far
it is.

`wake` is asked again and again for as long as somebody waits, by every gateway; whatever it decided lies in the rows,
so that it does not matter who asks next, or whether anybody does. One look takes one step of one deployment, with that
deployment's row locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.domain import pool as rules
from controlplane.domain import tenancy
from controlplane.domain.tenancy import Floors
from controlplane.fleet import starts
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Activation, Deployment
from controlplane.fleet.services import failures, giving, judging, placing, rows, taking
from controlplane.fleet.services.asks import Ask, Standing, State
from controlplane.fleet.services.placing import OVERFLOW, Plan
from controlplane.fleet.services.slots import Chances, Round
from controlplane.fleet.services.taking import ACTOR
from controlplane.fleet.services.verdicts import is_ready

log = structlog.get_logger(__name__)
WORDS = {
    Activation.Cause.REQUEST: "asked for",
    Activation.Cause.AHEAD: "ahead of requests",
    OVERFLOW: "overflow",
}
OPEN = (Activation.State.WAITING, Activation.State.STARTING)
WANTED_EVERY = timedelta(seconds=5)  # how often it is written that somebody still waits
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
            judging.judge(current, now)


def _wake(deployment_id: int, ask: Ask, look: Round) -> Standing:
    try:
        if (standing := _locked_step(deployment_id, ask, look)) is None:
            # Its slots were given back in a transaction of their own: one locks its nodes at once, in their order.
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
    """One look at one deployment, whose row is locked. Whatever it comes to, it has both slots of a pair or none."""

    deployment: Deployment
    ask: Ask
    now: datetime
    round: Round

    def step(self) -> Standing | None:
        """None: a start has just failed, or what was left of a pair was given back."""
        current = _open(self.deployment)
        if current is not None and current.state == Activation.State.STARTING:
            standing = judging.judge(current, self.now)
            if standing is not None:
                self._note(current)
            return standing
        mine = judging.partitions(self.deployment)
        if (served := judging.served(self.deployment, mine, self.now)) is not None:
            return served
        if mine and giving.clear(self.deployment, self.now):
            return None
        failed = failures.in_a_row(self.deployment, self.now)
        rest = rules.rest_s(len(failed)) - (self.now - failed[0].over_at).total_seconds() if failed else 0.0
        if rest > 0:
            return Standing(State.FAILED, rest, failed[0].message)
        return self._place(current, {row.partition_id for row in failed})

    def _place(self, current: Activation | None, failed: set[int | None]) -> Standing:
        """Give it its slots, or note that it waits for them."""
        asked_at = current.asked_at if current else self.now
        for _ in range(LOOKS):
            plan = placing.find(self.deployment, self.ask, self.round, failed, asked_at)
            if not plan.takes:
                return self._wait(current, plan.reason)
            evicted = ", ".join(sorted(deployment.name for deployment in plan.evicted))
            if self._take(plan):
                return self._started(current, plan, evicted)
            self.round.forget()
        return self._wait(current, "other models took the slots first")

    def _take(self, plan: Plan) -> bool:
        reason = f"{WORDS[self.ask.cause]}; {self.ask.because(plan.reason)}"
        taken = taking.take(plan, self.deployment, reason=reason, lent=self.ask.cause == OVERFLOW)
        for partition in taken or ():
            self.round.took(partition)
        return taken is not None

    def _started(self, current: Activation | None, plan: Plan, evicted: str) -> Standing:
        row = current or Activation(deployment=self.deployment, cause=self.ask.cause, asked_at=self.now)
        slots = [partition for partition, _ in plan.takes]
        row.state, row.partition, row.partner = Activation.State.STARTING, slots[0], slots[1] if slots[1:] else None
        row.shape = Deployment.PoolShape.PAIR if slots[1:] else Deployment.PoolShape.AGGREGATED
        row.slot, row.evicted = " + ".join(map(str, slots))[:255], evicted[:255]
        row.reason = self.ask.because(plan.reason)[:255]
        row.waiters, row.wanted_at, row.placed_at = max(row.waiters, self.ask.waiters), self.now, self.now
        row.woken = plan.woken
        row.save()
        return Standing(State.STARTING, judging.usual(row, slots))

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
        return Standing(State.WAITING, starts.woken_s(self.deployment), reason)

    def _note(self, current: Activation) -> None:
        """That somebody still waits: seldom, for it is asked several times a second."""
        waiters, now = self.ask.waiters, self.now
        if waiters > current.waiters or now - current.wanted_at >= WANTED_EVERY:
            current.waiters, current.wanted_at = max(current.waiters, waiters), now
            current.save(update_fields=["waiters", "wanted_at"])


def _why_overflow(deployment: Deployment, waiters: int, now: datetime) -> str:
    own = deployment.partitions.filter(overflow=False).select_related("node")
    if any(is_ready(row, now) for row in own):
        return f"its own engines are full, and {waiters} request{'s wait' if waiters != 1 else ' waits'}"
    return "none of its own engines is ready"


def _open(deployment: Deployment) -> Activation | None:
    row: Activation | None = deployment.activations.filter(state__in=OPEN).first()
    if row is not None:
        row.deployment = deployment
    return row


__all__ = ["ACTOR", "OPEN", "Ask", "Standing", "State", "look_after", "wake"]
