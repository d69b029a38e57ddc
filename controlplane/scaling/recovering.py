"""What becomes of a plan that was applied by itself and whose change stopped: it is led back, and where an engine did
not start none is put for a while. Changes of people stay stopped until people say how to go on."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Change
from controlplane.fleet.services import change_steps, roll_back_change
from controlplane.scaling.plans import ACTOR

log = structlog.get_logger(__name__)
RESTS = timedelta(minutes=30)


def roll_back_failed() -> None:
    """Idempotent. One that stops on its way back as well is left to people."""
    stopped = Change.objects.filter(plans__automatic=True, state=Change.State.STOPPED, backwards=False)
    for change in stopped.distinct():
        try:
            roll_back_change(change.pk, actor=ACTOR, reason=f"it stopped: {change.message}"[:1000])
        except FleetError as error:
            log.warning("a change that stopped could not be led back", change=change.pk, why=str(error))


def resting(now: datetime) -> set[int]:
    """Partitions where a step of such a plan failed lately."""
    lately = Change.objects.filter(plans__automatic=True, created_at__gt=now - RESTS)
    return {
        step["partition"]
        for steps in lately.distinct().values_list("steps", flat=True)
        for step in steps
        if step["state"] == change_steps.FAILED and not step["back"]
    }
