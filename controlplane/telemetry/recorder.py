"""One thread of the web process that turns finished sampling windows into rows, off the path of the reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog
from django.db import DatabaseError, close_old_connections, connection, transaction

from controlplane.fleet.models import Gpu, Partition
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.models import EngineSample, GpuSample
from controlplane.telemetry.windows import Closed

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
MAX_BACKLOG = 50_000  # windows kept while the database is away: the newest


class Recorder:
    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._backlog: list[Closed] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

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
        self._backlog = (self._backlog + self._ingest.close(now, all_of_them=all_of_them))[-MAX_BACKLOG:]
        if not self._backlog:
            return 0
        written = _write(self._backlog)
        self._backlog = []
        return written

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
        except DatabaseError:
            log.exception("samples not written", waiting=len(self._backlog))


def _write(windows: Iterable[Closed]) -> int:
    """Rows for what is still there: a GPU or partition that is gone, or is another node's, gets none."""
    devices = [window for window in windows if isinstance(window.key, str)]
    engines = [window for window in windows if isinstance(window.key, int)]
    with transaction.atomic():
        gpus = _gpus({window.node for window in devices})
        partitions = _partitions({window.node for window in engines})
        gpu_rows = [
            GpuSample(gpu_id=gpus[window.node, window.key], at=_time(window.at), **_whole_bytes(window.values))
            for window in devices
            if (window.node, window.key) in gpus
        ]
        engine_rows = [
            EngineSample(partition_id=window.key, at=_time(window.at), **window.values)
            for window in engines
            if (window.node, window.key) in partitions
        ]
        GpuSample.objects.bulk_create(gpu_rows, batch_size=500)
        EngineSample.objects.bulk_create(engine_rows, batch_size=500)
    return len(gpu_rows) + len(engine_rows)


def _gpus(nodes: set[int]) -> dict[tuple[int, str], int]:
    rows = Gpu.objects.filter(node__in=nodes).values_list("node_id", "uuid", "pk")
    return {(node, uuid): pk for node, uuid, pk in rows}


def _partitions(nodes: set[int]) -> set[tuple[int, int]]:
    return set(Partition.objects.filter(node__in=nodes).values_list("node_id", "pk"))


def _whole_bytes(values: dict[str, float | None]) -> dict[str, float | int | None]:
    used = values["memory_used_bytes"]
    return {**values, "memory_used_bytes": None if used is None else round(used)}


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
