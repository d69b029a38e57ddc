"""The API's periodic work in the control worker."""

from __future__ import annotations

from django.utils import timezone

from controlplane.api import idempotency
from controlplane.celery import app


@app.task(name="api.prune")
def prune() -> None:
    """Delete the answers that were kept long enough."""
    idempotency.prune(timezone.now())
