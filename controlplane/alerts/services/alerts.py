"""Taking an alert on."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from controlplane.alerts.models import Alert
from controlplane.audit.services import Actor, record
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import NotFound, Refused


@transaction.atomic
def acknowledge(alert_id: int, *, note: str = "", actor: Actor) -> Alert:
    """`actor` looks after it: others see so. A later one takes it over. Refused where it does not fire."""
    alert = Alert.objects.select_for_update().filter(pk=alert_id).first()
    if alert is None:
        raise NotFound("alert", alert_id)
    if alert.state != Alert.State.FIRING:
        message = f"This alert is {alert.state}: only one that fires is taken on."
        raise Refused([Problem("not-firing", message, "Look at those that fire now.")])
    before = {"acknowledged_by": alert.acknowledged_by, "note": alert.note}
    alert.acknowledged_at, alert.acknowledged_by, alert.note = timezone.now(), actor.name[:150], note[:500]
    alert.save(update_fields=["acknowledged_at", "acknowledged_by", "note"])
    after = {"acknowledged_by": alert.acknowledged_by, "note": alert.note}
    record(actor, "acknowledge", alert, before=before, after=after, reason=note)
    return alert
