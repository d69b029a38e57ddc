"""Periodic work of the sample store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.signals import worker_ready
from django.conf import settings
from django.utils import timezone

from controlplane.telemetry import process_log
from controlplane.telemetry.models import EngineSample, GpuSample


@shared_task(name="telemetry.prune", ignore_result=True)
def prune() -> None:
    """Delete samples older than settings.SAMPLE_KEEP_H."""
    oldest = timezone.now() - timedelta(hours=settings.SAMPLE_KEEP_H)
    for model in (GpuSample, EngineSample):
        model.objects.filter(at__lt=oldest).delete()


@worker_ready.connect
def _give_log(**_: Any) -> None:
    process_log.begin("worker")
