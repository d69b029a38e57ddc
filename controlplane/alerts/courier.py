"""Carries the outbox to the targets: at least once, in order, many alerts in one go. Only it writes what came of it.

One notification of a target is under way at a time; those behind it wait, so an end never overtakes its beginning."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.alerts import messages, wire
from controlplane.alerts.messages import Told
from controlplane.alerts.models import AlertTarget, Delivery, Notification
from controlplane.alerts.outbox import FIRED, GIVE_UP_S, RESOLVED
from controlplane.alerts.sealing import CannotOpen, Route, unseal
from controlplane.alerts.wire import Outcome

log = structlog.get_logger(__name__)
GROUP_S = 30.0  # a target hears from us once in so long; what happens meanwhile goes together
MOST = 500  # alerts in one notification
CLAIM_S = 120.0  # whoever sends one has come to an end of it by then
RETRY_S, RETRY_MOST_S = 10.0, 900.0
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"


def deliver_due(now: datetime | None = None) -> int:
    """Send what is due; how many notifications were taken."""
    now = now or timezone.now()
    waiting = Q(deliveries__notification=None, deliveries__isnull=False) | Q(
        notifications__state=Notification.State.WAITING
    )
    taken = 0
    for target in AlertTarget.objects.filter(waiting, enabled=True).distinct():
        if (claimed := _claim(target.pk, now)) is not None:
            taken += _carry(claimed, now)
    return taken


def send(target: AlertTarget, items: list[Told], key: str, now: datetime) -> Outcome:
    try:
        route = unseal(target.sealed)
    except CannotOpen:
        return Outcome(False, "Its address was sealed with another secret key of the control plane: set it again.")
    if target.kind == AlertTarget.Kind.EMAIL:
        return wire.mail(addresses(route.address), *messages.email(items), key)
    if target.kind == AlertTarget.Kind.PAGERDUTY:
        return _page(route, items, key)
    if target.kind == AlertTarget.Kind.SLACK:
        return wire.post(route.address, msgspec.json.encode(messages.slack(items)), {})
    body = msgspec.json.encode(messages.webhook(items, key, now))
    signed = {"Forebay-Signature": wire.signature(route.secret, body)} if route.secret else {}
    return wire.post(route.address, body, {"Idempotency-Key": key, **signed})


def addresses(text: str) -> list[str]:
    return [address.strip() for address in text.split(",") if address.strip()]


def _page(route: Route, items: list[Told], key: str) -> Outcome:
    """One event an alert; the first that is not taken ends it, and sending them again does no harm."""
    outcome = Outcome(True, "There was nothing to send.")
    for item in items:
        body = msgspec.json.encode(messages.pagerduty(item, route.secret))
        outcome = wire.post(route.address or PAGERDUTY, body, {"Idempotency-Key": f"{key}-{item.alert.pk}"})
        if not outcome.ok:
            break
    return outcome


@transaction.atomic
def _claim(target_id: int, now: datetime) -> Notification | None:
    """The target's oldest notification if it is due, else a new one of what waits."""
    target = AlertTarget.objects.select_for_update().filter(pk=target_id).first()
    if target is None:
        return None
    open_one = target.notifications.filter(state=Notification.State.WAITING).order_by("pk").first()
    if open_one is None:
        open_one = _gathered(target, now)
    if open_one is None or open_one.next_at > now:
        return None
    open_one.attempts += 1
    open_one.next_at = now + timedelta(seconds=CLAIM_S)
    open_one.save(update_fields=["attempts", "next_at"])
    return open_one


def _gathered(target: AlertTarget, now: datetime) -> Notification | None:
    newest = target.notifications.order_by("-pk").first()
    if newest is not None and (now - newest.created_at).total_seconds() < GROUP_S:
        return None
    _drop_ends_of_the_untold(target)
    waiting = list(target.deliveries.filter(notification=None).order_by("pk").values_list("pk", flat=True)[:MOST])
    if not waiting:
        return None
    made = Notification.objects.create(target=target, created_at=now, next_at=now)
    Delivery.objects.filter(pk__in=waiting).update(notification=made)
    return made


def _drop_ends_of_the_untold(target: AlertTarget) -> None:
    """Where the beginning could not be told, the end is no news."""
    untold = target.deliveries.filter(transition=FIRED, notification__state=Notification.State.FAILED)
    ends = target.deliveries.filter(transition=RESOLVED, notification=None, alert__in=untold.values("alert"))
    ends.delete()


def _carry(claimed: Notification, now: datetime) -> bool:
    target = claimed.target
    deliveries = list(claimed.deliveries.select_related("alert").order_by("pk"))
    outcome = send(target, messages.told(deliveries), str(claimed.key), now)
    if outcome.ok:
        claimed.state, claimed.sent_at, claimed.error = Notification.State.SENT, now, ""
    else:
        _failed(claimed, outcome, now)
    claimed.save(update_fields=["state", "sent_at", "error", "next_at"])
    said = {"error": claimed.error} | ({"sent_at": now} if outcome.ok else {})
    AlertTarget.objects.filter(pk=target.pk).update(**said)
    return outcome.ok


def _failed(claimed: Notification, outcome: Outcome, now: datetime) -> None:
    claimed.error = outcome.message[:255]
    too_old = (now - claimed.created_at).total_seconds() >= GIVE_UP_S
    if outcome.final or too_old:
        claimed.state = Notification.State.FAILED
        log.error("alerts not delivered", target=claimed.target.name, error=outcome.message)
        return
    pause = min(RETRY_S * 2 ** min(claimed.attempts - 1, 10), RETRY_MOST_S)
    claimed.next_at = now + timedelta(seconds=pause)
