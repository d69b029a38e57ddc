"""How far a start is, and whether anything serves a model: by what agents say of its slots."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import structlog
from django.conf import settings

from controlplane.domain.health import is_silent
from controlplane.fleet import starts
from controlplane.fleet.models import Activation, Deployment, Node, Partition, RegisteredModel
from controlplane.fleet.services import exclusive, rows, taking
from controlplane.fleet.services.asks import Standing, State
from controlplane.fleet.services.failures import GIVEN_AWAY
from controlplane.fleet.services.verdicts import broken, fault, gone, is_ready, was_ready
from workers.contract import Role

log = structlog.get_logger(__name__)


def judge(current: Activation, now: datetime) -> Standing | None:
    """How far a start is; None where it failed, which is then written and its slots free again: of a pair both, though
    only one of them was at fault. The deployment's row is locked."""
    found = _slots(current)
    for partition, role in found:
        if why := _fault(current, partition, role, now):
            if why == GIVEN_AWAY and was_ready(current):
                _end(current, Activation.State.READY, now)  # and gone for another model before anybody noted that
                return None
            _fail(current, [row for row, _ in found if row is not None], partition, why, now)
            return None
    there = [row for row, _ in found if row is not None]
    starting = [row for row in there if not is_ready(row, now)]
    if not starting:
        _end(current, Activation.State.READY, _ready_at(current, there, now))
        return Standing(State.READY)
    takes, spent = usual(current, starting), (now - (current.placed_at or now)).total_seconds()
    return Standing(State.STARTING, None if takes is None else max(1.0, takes - spent))


def usual(current: Activation, slots: Sequence[Partition]) -> float | None:
    """Seconds that it takes to be ready there: by starts on those nodes, else by its own anywhere. None: none yet."""
    there = longest(current, slots)
    return starts.woken_s(current.deployment) if there is None else there


def longest(current: Activation, slots: Sequence[Partition]) -> float | None:
    """Seconds that engines of its model usually take to start there, all of them; None: not known of one. A wake that
    was never measured takes as long as a start at most."""
    model = current.deployment.model
    measured = [_usual_s(model, partition.node, current.woken) for partition in slots]
    known = [seconds for seconds in measured if seconds is not None]
    return max(known) if known and len(known) == len(measured) else None


def _usual_s(model: RegisteredModel, node: Node, woken: bool) -> float | None:
    wake_s = starts.wake_s(model, node) if woken else None
    return starts.start_s(model, node) if wake_s is None else wake_s


def partitions(deployment: Deployment) -> list[Partition]:
    """What it has. Of a dedicated one only its slot counts: its own engines are full."""
    mine = deployment.partitions.select_related("node").prefetch_related("gpus")
    return list(mine.filter(overflow=True) if deployment.mode == Deployment.Mode.DEDICATED else mine)


def served(deployment: Deployment, mine: Sequence[Partition], now: datetime) -> Standing | None:
    """Where it has partitions without our doing: an operator's, or one whose engine starts again. Those where no engine
    will come are no reason to wait."""
    alive = [row for row in mine if not _is_lost(row, now)]
    if _answers(deployment, {row.role for row in alive if is_ready(row, now)}):
        return Standing(State.READY)
    return Standing(State.STARTING) if _answers(deployment, {row.role for row in alive}) else None


def _answers(deployment: Deployment, roles: Collection[str]) -> bool:
    """Whether engines of these roles are all that it is woken as. A decode engine alone does for one that is not woken
    as a pair; a prefill engine alone for none."""
    if Role.AGGREGATED in roles:
        return True
    return Role.DECODE in roles and (not deployment.is_pair or Role.PREFILL in roles)


def _slots(current: Activation) -> list[tuple[Partition | None, str]]:
    """With the role that each has; None: it is gone."""
    found = Partition.objects.select_related("node").prefetch_related("gpus")
    rows = found.in_bulk([pk for pk in (current.partition_id, current.partner_id) if pk is not None])
    if current.shape != Deployment.PoolShape.PAIR:
        return [(rows.get(current.partition_id or 0), Role.AGGREGATED)]
    return [
        (rows.get(current.partition_id or 0), Role.PREFILL),
        (rows.get(current.partner_id or 0), Role.DECODE),
    ]


def _fault(current: Activation, partition: Partition | None, role: str, now: datetime) -> str | None:
    """None while nothing is wrong with it. What befell one that is ready by now is over, and how long the other half
    takes is not its fault."""
    if partition is None or partition.deployment_id != current.deployment_id or partition.role != role:
        return GIVEN_AWAY
    if not is_ready(partition, now):
        return fault(current, partition, now)
    return gone(partition, now)


def _fail(current: Activation, slots: Sequence[Partition], at_fault: Partition | None, why: str, now: datetime) -> None:
    log.warning("a model could not be woken", deployment=current.deployment.name, slot=current.slot, why=why)
    locked = rows.lock_partitions([row.pk for row in slots if row.deployment_id == current.deployment_id])
    mine = [row for row in locked.values() if row.deployment_id == current.deployment_id]
    exclusive.require_free([row.pk for row in mine])
    own, other = f"it did not start: {why}", f"the other engine of its pair did not start: {why}"
    reasons = {row.pk: own if at_fault is None or row.pk == at_fault.pk else other for row in mine}
    taking.release(mine, reasons, sleep=True)
    if current.shape == Deployment.PoolShape.PAIR and at_fault is not None:
        why = f"{at_fault}: {why}"
    current.partition, current.partner = at_fault, None
    _end(current, Activation.State.FAILED, now, why)


def _ready_at(current: Activation, slots: Sequence[Partition], now: datetime) -> datetime:
    """When the last of these became ready, by its agent: nobody may have looked since."""
    since = max((row.phase_since for row in slots if row.phase_since is not None), default=now)
    return min(now, max(since, current.placed_at or since))


def _end(current: Activation, state: Activation.State, now: datetime, why: str = "") -> None:
    current.state, current.ended_at, current.message = state, now, why[:255]
    current.save(update_fields=["state", "ended_at", "message", "partition", "partner"])


def _is_lost(row: Partition, now: datetime) -> bool:
    heard = row.node.last_seen.timestamp() if row.node.last_seen else None
    silent = is_silent(heard, now.timestamp(), settings.SILENT_AFTER_S)
    return silent or row.node.draining or row.node.revoked or bool(gone(row, now) or broken(row, now))
