"""Periodic work of the sample store."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from controlplane.fleet.models import Node
from controlplane.telemetry import days, latest, process_log, pruning, rollup, valkey
from controlplane.telemetry.spans import moment


@shared_task(name="telemetry.roll_up", ignore_result=True)
def roll_up() -> None:
    rollup.advance(time.time())


@shared_task(name="telemetry.prune", ignore_result=True)
def prune() -> None:
    now = time.time()
    days.make_ahead(moment(now))
    pruning.prune(now)
    with contextlib.suppress(valkey.Unreachable):
        latest.forget_all_but(set(Node.objects.values_list("pk", flat=True)))


@worker_ready.connect
def _give_log(**_: Any) -> None:
    process_log.begin("worker")
