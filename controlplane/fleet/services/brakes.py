"""Letting things happen by themselves though many nodes are silent: somebody has looked, and takes it on."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet import brake
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import BrakeRow

MAX_RELEASE_S = 24 * 3600


@transaction.atomic
def release_brake(*, actor: Actor, reason: str, for_s: float) -> brake.Brake:
    """What would happen by itself may, for so many seconds; another loss meanwhile brakes anew. A reason is needed."""
    if not reason.strip():
        raise Invalid([Problem("reason", "Nothing was changed: a release needs a reason.", "Say what was found.")])
    if not 0 < for_s <= MAX_RELEASE_S:
        message = f"A release lasts more than 0 and at most {MAX_RELEASE_S} seconds, not {for_s:g}."
        raise Invalid([Problem("duration", message, "Release it again if it takes longer.")])
    now = timezone.now()
    if not brake.look(now).tripped:
        raise Refused([Problem("brake-off", "The brake is not on: nothing holds it.", "There is nothing to release.")])
    row = BrakeRow.objects.select_for_update().get(pk=brake.ROW)
    row.released_since, row.released_until = row.since, now + timedelta(seconds=for_s)
    row.released_by, row.release_reason = actor.name[:150], reason
    row.save(update_fields=["released_since", "released_until", "released_by", "release_reason"])
    record(actor, "release-brake", row, after={"until": row.released_until.isoformat()}, reason=reason)
    return brake.state(now)


@transaction.atomic
def restore_brake(*, actor: Actor, reason: str = "") -> brake.Brake:
    """End a release before its time. Nothing where there is none."""
    now = timezone.now()
    found = brake.look(now)
    if found.released_until is None:
        return found
    row = BrakeRow.objects.select_for_update().get(pk=brake.ROW)
    row.released_until = now
    row.save(update_fields=["released_until"])
    record(actor, "restore-brake", row, before={"until": found.released_until.isoformat()}, reason=reason)
    return brake.state(now)
