"""The control plane's Celery app: its own periodic work, and the nudges to the nodes' queues."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import beat_embedded_init

from controlplane import tether

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings  # after the variable above

app = Celery("controlplane", broker=settings.REDIS_URL)
app.conf.update(
    task_default_queue="control",
    task_ignore_result=True,
    task_acks_late=False,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_connect_timeout": 1.0, "socket_timeout": 5.0, "max_retries": 1},
    beat_schedule={
        "fleet.sweep": {"task": "fleet.sweep", "schedule": 60.0, "options": {"expires": 50}},
        "fleet.advance": {"task": "fleet.advance", "schedule": 1.0, "options": {"expires": 3}},
        "fleet.watch": {"task": "fleet.watch", "schedule": 10.0, "options": {"expires": 8}},
        "fleet.qualify": {"task": "fleet.qualify", "schedule": 900.0, "options": {"expires": 600}},
        "fleet.prefetch": {"task": "fleet.prefetch", "schedule": 300.0, "options": {"expires": 250}},
        "alerts.tick": {"task": "alerts.tick", "schedule": 10.0, "options": {"expires": 8}},
        "alerts.deliver": {"task": "alerts.deliver", "schedule": 5.0, "options": {"expires": 4}},
        "alerts.prune": {"task": "alerts.prune", "schedule": 3600.0, "options": {"expires": 3000}},
        "telemetry.roll_up": {"task": "telemetry.roll_up", "schedule": 60.0, "options": {"expires": 50}},
        "telemetry.prune": {"task": "telemetry.prune", "schedule": 600.0, "options": {"expires": 500}},
        "api.prune": {"task": "api.prune", "schedule": 600.0, "options": {"expires": 500}},
        "planning.tick": {"task": "planning.tick", "schedule": 60.0, "options": {"expires": 50}},
        "planning.pool": {"task": "planning.pool", "schedule": 2.0, "options": {"expires": 3}},
        "planning.measure": {"task": "planning.measure", "schedule": 3.0, "options": {"expires": 3}},
        "planning.keep": {"task": "planning.keep", "schedule": 3600.0, "options": {"expires": 3000}},
        "costs.count": {"task": "costs.count", "schedule": 120.0, "options": {"expires": 100}},
        "scaling.look": {"task": "scaling.look", "schedule": settings.SCALING_EVERY_S, "options": {"expires": 50}},
        "gateway.prune": {"task": "gateway.prune", "schedule": 3600.0, "options": {"expires": 3000}},
    },
)


@beat_embedded_init.connect
def _end_with_the_worker(**_: Any) -> None:
    """A worker that is killed outright leaves its beat behind, and the next one would start a second."""
    tether.tie(os.getppid())


app.autodiscover_tasks(
    [
        f"controlplane.{name}"
        for name in ("fleet", "telemetry", "gateway", "alerts", "planning", "costs", "scaling", "api")
    ],
)
