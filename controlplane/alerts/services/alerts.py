"""Taking an alert on."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from controlplane.alerts.models import Alert
from controlplane.audit.services import Actor, record
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import NotFound, Refused


@transaction.atomic
def acknowledge(alert_id: int, *, note: str = "", seen: str | None = None, actor: Actor) -> Alert:
    """`actor` looks after it: others see so. A later one takes it over; without a note of their own the earlier one
    stays. `seen`: who looked after it when `actor` asked, "" for nobody. Refused where it does not fire, and where
    another than `seen` looks after it by now."""
    alert = Alert.objects.select_for_update().filter(pk=alert_id).first()
    if alert is None:
        raise NotFound("alert", alert_id)
    if alert.state != Alert.State.FIRING:
        message = f"This alert is {alert.state}: only one that fires is taken on."
        raise Refused([Problem("not-firing", message, "Look at those that fire now.")])
    if seen is not None and alert.acknowledged_by not in (seen, "", actor.name[:150]):
        message = f"{alert.acknowledged_by} already looks after it."
        raise Refused([Problem("taken-on", message, "Open the alert to take it over.")])
    note = note[:500] or alert.note
    before = {"acknowledged_by": alert.acknowledged_by, "note": alert.note}
    alert.acknowledged_at, alert.acknowledged_by, alert.note = timezone.now(), actor.name[:150], note
    alert.save(update_fields=["acknowledged_at", "acknowledged_by", "note"])
    after = {"acknowledged_by": alert.acknowledged_by, "note": alert.note}
    record(actor, "acknowledge", alert, before=before, after=after, reason=note)
    return alert
