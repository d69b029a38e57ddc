"""Planning's periodic work in the control worker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog
from celery import shared_task
from django.conf import settings
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane import tether
from controlplane.fleet.services import pool
from controlplane.planning import beginning, comparing, habits, keeping, measurements, pooling, standing
from controlplane.planning.forecasting import forecasting
from controlplane.planning.history import Reading

log = structlog.get_logger(__name__)
DAYS_AT_ONCE = 5
LEAST_URGENT = 15  # nice
_busy, _comparing = threading.Lock(), threading.Lock()
_measuring: list[subprocess.Popen[bytes]] = []


@shared_task(name="planning.tick", ignore_result=True)
def tick() -> None:
    """In a thread of its own: the first forecast after a start takes many seconds, and the worker has more to do."""
    if _busy.acquire(blocking=False):
        threading.Thread(target=_tick, name="planning", daemon=True).start()
    if _comparing.acquire(blocking=False):
        threading.Thread(target=_compare, name="comparing", daemon=True).start()


@shared_task(name="planning.pool", ignore_result=True)
def watch_pool() -> None:
    """What became of activations, and slots for those to come."""
    if left := pooling.look():
        log.info("slots were emptied for models to come", left=left)


@shared_task(name="planning.keep", ignore_result=True)
def keep() -> None:
    """Pack what is old enough, a bounded number of days each time; forget what is past its keep."""
    now = time.time()
    for _ in range(DAYS_AT_ONCE):
        if not keeping.pack_minutes(now):
            break
    keeping.prune(now)
    pool.prune(timezone.now())


@shared_task(name="planning.measure", ignore_result=True)
def measure() -> None:
    """Start a process for an engine that is wanted measured: in this one, other work would be in the times. It ends
    with this one."""
    if _measuring and _measuring[0].poll() is None:
        return
    _measuring.clear()
    measurements.give_up_silent()
    if (run := measurements.wanted()) is not None:
        tied = [sys.executable, str(Path(tether.__file__)), str(os.getpid())]
        argv = [*tied, sys.executable, str(settings.BASE_DIR / "manage.py"), "measure_engine", str(run)]
        _measuring.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL))  # noqa: S603 - our own program, no shell


def _tick() -> None:
    try:
        close_old_connections()
        now = time.time()
        if beginning.gateways(timezone.now()):
            keeping.note_recorded(now)
        reading = Reading(now)
        forecasting.tick(now, reading)
        standing.refresh(now, reading)
        habits.refresh(now, reading)
    except Exception:
        log.exception("no forecast was made; the next round tries again")
    finally:
        connection.close()
        _busy.release()


def _compare() -> None:
    """A comparison of methods takes minutes: it yields to all else on the machine."""
    try:
        close_old_connections()
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_URGENT)  # of this thread alone
        comparing.compare_if_due(time.time())
    except Exception:
        log.exception("methods were not compared; the next round tries again")
    finally:
        connection.close()
        _comparing.release()
