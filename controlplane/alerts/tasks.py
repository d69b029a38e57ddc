"""The periodic work of alerts. A look is a few milliseconds; sending may wait on others, so it has its own thread."""

from __future__ import annotations

import threading
from datetime import timedelta

import structlog
from celery import shared_task
from django.conf import settings
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.alerts import courier, evaluation
from controlplane.alerts.models import Alert, Notification, Silence

log = structlog.get_logger(__name__)
_sending = threading.Lock()


@shared_task(name="alerts.tick", ignore_result=True)
def tick() -> None:
    evaluation.tick()


@shared_task(name="alerts.deliver", ignore_result=True)
def deliver() -> None:
    """The worker carries out the fleet's changes too: it does not wait for somebody's mail server."""
    if _sending.acquire(blocking=False):
        threading.Thread(target=_deliver, name="alerts-courier", daemon=True).start()


@shared_task(name="alerts.prune", ignore_result=True)
def prune() -> None:
    """Forget what ended, was sent or ran out longer than settings.ALERT_KEEP_DAYS ago."""
    oldest = timezone.now() - timedelta(days=settings.ALERT_KEEP_DAYS)
    Alert.objects.filter(resolved_at__lt=oldest).delete()
    Notification.objects.filter(created_at__lt=oldest).delete()
    Silence.objects.filter(until__lt=oldest).delete()


def _deliver() -> None:
    try:
        close_old_connections()
        courier.deliver_due()
    except Exception:
        log.exception("alerts could not be delivered; the next round tries again")
    finally:
        connection.close()
        _sending.release()
