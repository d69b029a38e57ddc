"""The gateway's periodic work in the control worker."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from controlplane.celery import app
from controlplane.fleet import verified
from controlplane.gateway.models import DemandMinute, RequestRecord

BATCH = 5000
BATCHES = 40
DEMAND_KEEP_DAYS = 400  # the planner looks back further than people do


@app.task(name="gateway.prune")
def prune() -> None:
    """Delete records past their keep, a bounded number each time; the next call goes on."""
    now = timezone.now()
    verified.forget_gateways(now)
    old = RequestRecord.objects.filter(at__lt=now - timedelta(days=settings.RECORD_KEEP_DAYS))
    for _ in range(BATCHES):
        ids = list(old.order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not ids:
            break
        RequestRecord.objects.filter(pk__in=ids).delete()
    DemandMinute.objects.filter(minute__lt=now - timedelta(days=DEMAND_KEEP_DAYS)).delete()
