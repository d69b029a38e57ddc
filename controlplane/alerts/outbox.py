"""What is to be told, to whom: once of each transition, and never of an end whose beginning was not told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef

from controlplane.alerts.matching import in_force, silence_of
from controlplane.alerts.models import Alert, AlertTarget, Delivery, Notification
from controlplane.domain.alerting import SEVERITIES, Severity

GIVE_UP_S = 24 * 3600.0  # a target that takes nothing for so long is not told of it any more
FIRED, RESOLVED = Delivery.Transition.FIRED, Delivery.Transition.RESOLVED


def put(now: datetime) -> None:
    """Deliveries for what fires untold and unsilenced, and for the ends of what was told. Inside the tick's
    transaction; a second run finds nothing left to do."""
    _put_fired(now)
    _put_resolved(now)


def _put_fired(now: datetime) -> None:
    untold = list(Alert.objects.filter(state=Alert.State.FIRING, told_at=None).order_by("pk"))
    silences = in_force(now) if untold else []
    told = [alert for alert in untold if silence_of(alert, silences) is None]
    if not told:
        return
    targets = list(AlertTarget.objects.filter(enabled=True))
    _create(((alert, target) for alert in told for target in targets if _takes(target, alert)), FIRED, now)
    Alert.objects.filter(pk__in=[alert.pk for alert in told]).update(told_at=now)


def _put_resolved(now: datetime) -> None:
    told = Delivery.objects.filter(alert=OuterRef("alert"), target=OuterRef("target"), transition=RESOLVED)
    lately = now - timedelta(seconds=GIVE_UP_S)
    ended = Delivery.objects.filter(transition=FIRED, alert__resolved_at__gt=lately, target__enabled=True)
    untold = ended.exclude(notification__state=Notification.State.FAILED).exclude(Exists(told))
    _create(((one.alert, one.target) for one in untold.select_related("alert", "target")), RESOLVED, now)


def _create(pairs: Iterable[tuple[Alert, AlertTarget]], transition: Delivery.Transition, now: datetime) -> None:
    rows = [Delivery(alert=alert, target=target, transition=transition, created_at=now) for alert, target in pairs]
    Delivery.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)


def _takes(target: AlertTarget, alert: Alert) -> bool:
    return SEVERITIES.index(Severity(alert.severity)) >= SEVERITIES.index(Severity(target.min_severity))
