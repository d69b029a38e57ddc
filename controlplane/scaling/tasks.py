"""Scaling's periodic work in the control worker."""

from __future__ import annotations

import threading

import structlog
from celery import shared_task
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.scaling import proposing

log = structlog.get_logger(__name__)
_busy = threading.Lock()


@shared_task(name="scaling.look", ignore_result=True)
def look() -> None:
    """In a thread of its own: a replay takes seconds, and the worker has more to do."""
    if _busy.acquire(blocking=False):
        threading.Thread(target=_look, name="scaling", daemon=True).start()


def _look() -> None:
    try:
        close_old_connections()
        proposing.propose(timezone.now())
        proposing.prune(timezone.now())
    except Exception:
        log.exception("no plan was made; the next round tries again")
    finally:
        connection.close()
        _busy.release()
