"""Periodic work of the sample store."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from controlplane.telemetry import process_log, pruning, rollup


@shared_task(name="telemetry.roll_up", ignore_result=True)
def roll_up() -> None:
    rollup.advance(time.time())


@shared_task(name="telemetry.prune", ignore_result=True)
def prune() -> None:
    pruning.prune(time.time())


@worker_ready.connect
def _give_log(**_: Any) -> None:
    process_log.begin("worker")
