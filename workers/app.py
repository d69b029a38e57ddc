"""Celery on the node: one queue in, one task. It only makes specs arrive sooner; the agent needs none of it.

It runs in a thread beside the agent, and is started again whenever it ends: no fault of the broker may reach the
engines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec
from celery import Celery
from celery.worker import WorkController
from celery.worker import state as worker_state
from kombu.entity import Exchange, Queue

from workers.contract import NodeSpec

log = logging.getLogger(__name__)
TASK = "workers.reconcile"
AGAIN_S = 5.0


def build_app(broker_url: str, queue: str, submit: Callable[[NodeSpec], bool]) -> Celery:
    """An app that consumes `queue` and touches no key of the broker but those of `queue`."""
    # No fixups: where DJANGO_SETTINGS_MODULE happens to be set, Celery would load Django and its logging.
    app = Celery("workers", broker=broker_url, set_as_current=False, fixups=[])
    app.conf.update(
        task_queues=[_queue(queue)],
        task_default_queue=queue,
        task_default_exchange=queue,
        task_default_routing_key=queue,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_acks_late=False,
        task_serializer="json",
        accept_content=["json"],
        worker_pool="solo",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport(queue),
    )

    @app.task(name=TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def reconcile(spec: object) -> None:
        try:
            submit(msgspec.convert(spec, NodeSpec))
        except msgspec.ValidationError as error:
            log.error("a spec that is none arrived over the broker and is dropped: %s", error)

    return app


def _transport(queue: str) -> dict[str, object]:
    """Every key of the transport is named after the queue, so that the node's user can be kept to those."""
    return {
        "unacked_key": f"{queue}.unacked",
        "unacked_index_key": f"{queue}.unacked_index",
        "unacked_mutex_key": f"{queue}.unacked_mutex",
        "socket_connect_timeout": 3.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _queue(name: str) -> Queue:
    exchange = Exchange(name, type="direct")  # type: ignore[no-untyped-call]
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


class Nudges:
    """The thread that consumes the node's queue."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app, self._hostname = app, hostname
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nudges", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 0.5) -> None:
        """An early-acknowledged nudge that is lost here comes again with the next report: no need to wait long."""
        self._done.set()
        worker_state.should_stop = 0
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._app.set_current()  # for this thread: a bare controller looks tasks up in the current app
        while not self._done.is_set():
            try:
                worker_state.should_stop = None
                self._controller().start()
            except (Exception, SystemExit):
                log.exception("the broker's consumer failed")
            self._done.wait(AGAIN_S)

    def _controller(self) -> WorkController:
        """The bare worker: celery.apps.worker's would take over the signals, which are the agent's."""
        return WorkController(
            app=self._app,
            hostname=self._hostname,
            pool="solo",
            concurrency=1,
            loglevel=logging.WARNING,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
