"""One thread of the web process that turns finished sampling windows into rows, off the path of the reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from django.db import DatabaseError, close_old_connections, connection, transaction

from controlplane.fleet.models import Deployment, Gpu, Partition
from controlplane.telemetry import kv_trouble, process_figures, rows
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.models import EngineSample, GpuSample
from controlplane.telemetry.windows import ENGINE_COLUMNS, GPU_COLUMNS, Closed

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
AT_ONCE = 2_000  # windows a transaction: other writers wait for it no longer than some 20 ms
MAX_BACKLOG = 50_000  # windows kept while the database is away: the newest


class Recorder:
    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._backlog: list[Closed] = []
        self._trouble: dict[kv_trouble.Key, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Windows that are over and not written."""
        return len(self._backlog)

    def start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="telemetry-recorder", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread after it has written what it holds, unfinished windows too."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(timeout=10)
            self._thread = None

    def record(self, now: float, *, all_of_them: bool = False) -> int:
        """Write the windows that are over; how many rows. They are kept for the next call if the database fails."""
        self._backlog += self._ingest.close(now, all_of_them=all_of_them)
        if (surplus := len(self._backlog) - MAX_BACKLOG) > 0:
            del self._backlog[:surplus]
            process_figures.windows_dropped.inc(surplus)
        written = 0
        while self._backlog:
            written += _write(self._backlog[:AT_ONCE])
            del self._backlog[:AT_ONCE]
        return written

    def tell(self) -> None:
        """Events of KV that was lost. They are kept for the next call if the database fails."""
        for key, count in self._ingest.pop_trouble().items():
            self._trouble[key] = self._trouble.get(key, 0.0) + count
        self._trouble = kv_trouble.tell(self._trouble)

    def _run(self) -> None:
        try:
            while not self._stop.wait(LOOK_EVERY_S):
                self._look()
            self._look(all_of_them=True)
        finally:
            connection.close()

    def _look(self, *, all_of_them: bool = False) -> None:
        close_old_connections()
        try:
            self.record(time.time(), all_of_them=all_of_them)
            self.tell()
        except DatabaseError:
            log.exception("samples not written", waiting=len(self._backlog))


def _write(windows: Sequence[Closed]) -> int:
    """Rows for what is still there: a GPU or partition that is gone, or is another node's, gets none."""
    devices = [window for window in windows if isinstance(window.key, str)]
    engines = [window for window in windows if isinstance(window.key, int)]
    with transaction.atomic():
        gpus = _gpus({window.node for window in devices})
        partitions = _partitions({window.node for window in engines})
        deployments = _deployments({window.deployment for window in engines})
        gpu_rows = [
            (gpus[window.node, window.key], _time(window.at), *window.values.values())
            for window in devices
            if (window.node, window.key) in gpus
        ]
        engine_rows = [
            (window.key, _time(window.at), deployments.get(window.deployment, 0), *window.values.values())
            for window in engines
            if (window.node, window.key) in partitions
        ]
        rows.insert(GpuSample, ("gpu_id", "at", *GPU_COLUMNS), gpu_rows)
        rows.insert(EngineSample, ("partition_id", "at", "deployment_id", *ENGINE_COLUMNS), engine_rows)
    return len(gpu_rows) + len(engine_rows)


def _gpus(nodes: set[int]) -> dict[tuple[int, str], int]:
    found = Gpu.objects.filter(node__in=nodes).order_by().values_list("node_id", "uuid", "pk") if nodes else ()
    return {(node, uuid): pk for node, uuid, pk in found}


def _partitions(nodes: set[int]) -> set[tuple[int, int]]:
    if not nodes:
        return set()
    return set(Partition.objects.filter(node__in=nodes).order_by().values_list("node_id", "pk"))


def _deployments(names: set[str]) -> dict[str, int]:
    if not names:
        return {}
    return dict(Deployment.objects.filter(name__in=names).order_by().values_list("name", "pk"))


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
