"""Tells a node over Celery that a newer spec exists. A nudge may get lost: the reply to the next report carries the
same spec. So nothing here raises, retries or waits long."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Celery
from django.conf import settings
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)
EXPIRES_S = 30
GIVE_UP_S = 0.5  # connecting to, or writing to, the broker
PAUSE_S = 5.0  # after a failure nobody waits for the broker again for so long

_state: dict[str, Any] = {"app": None, "paused_until": 0.0}


def send(node_id: int, spec: dict[str, Any]) -> bool:
    """Put `spec` on the node's queue; False where the broker did not take it."""
    if time.monotonic() < _state["paused_until"]:
        return False
    try:
        _app().send_task(
            "workers.reconcile",
            args=[spec],
            queue=queue_of(node_id),
            expires=EXPIRES_S,
            retry=False,
            ignore_result=True,
        )
    except (OperationalError, OSError) as error:
        _state["paused_until"] = time.monotonic() + PAUSE_S
        logger.warning("the broker takes no nudges (%s): nodes learn of changes from the replies to reports", error)
        return False
    return True


def queue_of(node_id: int) -> str:
    return f"node.{node_id}"


def reset() -> None:
    """Forget the connection and the last failure: the broker's address may have changed."""
    if _state["app"] is not None:
        _state["app"].close()
    _state.update(app=None, paused_until=0.0)


def _app() -> Celery:
    """A Celery app of its own: a nudge has to give up much sooner than the control worker's connection."""
    if _state["app"] is None:
        app = Celery("nudge", broker=settings.REDIS_URL, set_as_current=False)
        app.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            broker_connection_timeout=GIVE_UP_S,
            broker_transport_options={
                "socket_connect_timeout": GIVE_UP_S,
                "socket_timeout": GIVE_UP_S,
                "max_retries": 0,
                "interval_start": 0,
                "interval_step": 0,
            },
        )
        _state["app"] = app
    return _state["app"]
