"""Planning's periodic work in the control worker."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import structlog
from celery import shared_task
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.fleet.models import GatewayBeat
from controlplane.planning import keeping, standing
from controlplane.planning.forecasting import forecasting

log = structlog.get_logger(__name__)
LIVES = timedelta(seconds=90)  # a gateway that was heard within tells what it was asked
DAYS_AT_ONCE = 5
_busy = threading.Lock()


@shared_task(name="planning.tick", ignore_result=True)
def tick() -> None:
    """In a thread of its own: the first forecast after a start takes many seconds, and the worker has more to do."""
    if _busy.acquire(blocking=False):
        threading.Thread(target=_tick, name="planning", daemon=True).start()


@shared_task(name="planning.keep", ignore_result=True)
def keep() -> None:
    """Pack what is old enough, a bounded number of days each time; forget what is past its keep."""
    now = time.time()
    for _ in range(DAYS_AT_ONCE):
        if not keeping.pack_minutes(now):
            break
    keeping.prune(now)


def _tick() -> None:
    try:
        close_old_connections()
        now = time.time()
        if GatewayBeat.objects.filter(seen_at__gt=timezone.now() - LIVES).exists():
            keeping.note_recorded(now)
        forecasting.tick(now)
        standing.refresh(now)
    except Exception:
        log.exception("no forecast was made; the next round tries again")
    finally:
        connection.close()
        _busy.release()
