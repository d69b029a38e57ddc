"""The counting of usage in the control worker."""

from __future__ import annotations

import threading

import structlog
from celery import shared_task
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.costs import counting

log = structlog.get_logger(__name__)
_busy = threading.Lock()


@shared_task(name="costs.count", ignore_result=True)
def count() -> None:
    """In a thread of its own: after an outage there is much to count, and the worker has more to do."""
    if _busy.acquire(blocking=False):
        threading.Thread(target=_count, name="costs", daemon=True).start()


def _count() -> None:
    try:
        close_old_connections()
        now = timezone.now()
        counting.count(now)
        counting.prune(now)
    except Exception:
        log.exception("usage was not counted; the next round tries again")
    finally:
        connection.close()
        _busy.release()
