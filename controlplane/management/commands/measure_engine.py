"""Measure one engine that somebody asked to have measured: what the control worker starts, a process a run."""

from __future__ import annotations

import asyncio
import threading
from argparse import ArgumentParser
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from controlplane.planning import measurements
from controlplane.planning.measuring import Asked, Progress, Stopped, measure
from controlplane.planning.meter import MeterFailed

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    requires_system_checks: list[str] = []
    help = "Measure the engine of a profile run that is wanted (forebay profile run), and keep its profile"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, help="the number of the run")

    def handle(self, *args: Any, run: int, **options: Any) -> None:
        row = measurements.begin(run)
        if row is None:
            raise CommandError(f"Run {run} is not to be begun.")
        asked = measurements.asked_of(row)
        if asked is None:
            measurements.fail(run, f"The engine of {row.partition} is not ready any more.")
            return
        try:
            _measure(run, asked)
        except MeterFailed as error:
            measurements.fail(run, str(error))
        except Stopped:
            log.info("measuring was called off", run=run)
        except Exception as error:
            measurements.fail(run, f"It failed: {error!r}")
            raise


def _measure(run: int, asked: Asked) -> None:
    progress = Progress()
    teller = _Teller(run, progress)
    teller.start()
    try:
        profile, notes = asyncio.run(measure(asked, progress))
    finally:
        teller.stop()
    measurements.finish(run, profile, notes)


class _Teller(threading.Thread):
    """Tells how far it is, and hears that it is called off: the measuring thread never waits for the database."""

    def __init__(self, run: int, progress: Progress) -> None:
        super().__init__(name="profile-telling", daemon=True)
        self._number, self._progress = run, progress
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(measurements.BEAT_S):
            try:
                close_old_connections()
                self._progress.stop = not measurements.beat(self._number, self._progress)
            except DatabaseError as error:
                log.warning("how far it is cannot be told; tried again", error=str(error))
        connection.close()

    def stop(self) -> None:
        self._ended.set()
        self.join(5.0)
