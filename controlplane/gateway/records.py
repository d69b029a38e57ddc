"""One RequestRecord per request, written in batches by a thread: the path of a request never waits for it.

While the database is away the newest records are kept; the oldest are dropped and counted, as is a record that
cannot be written at all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container
from datetime import UTC, datetime

import structlog
from django.db import DataError, IntegrityError, close_old_connections, connection, transaction
from django.db import Error as DatabaseError

from controlplane.gateway.demand import Demand, Minutes
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.models import ApiKey, DemandMinute, RequestRecord
from controlplane.gateway.trip import Trip, bounded

log = structlog.get_logger(__name__)
KEEP = 50_000
BATCH = 500
DEMAND_EVERY_S = 5.0
RETRY_S = 5.0
COLUMNS = (
    "at", "request_id", "api_key_id", "deployment", "kind",
    "streamed", "outcome", "status", "error", "path", "prefill",
    "decode", "attempts", "continued", "continued_from", "prompt_tokens", "completion_tokens", "cached_tokens",
    "prefill_ms", "transfer_ms", "ttft_ms", "itl_ms", "total_ms", "wake_ms",
)  # fmt: skip

SUMMED = ("arrivals", "active_s", "prompt_tokens", "completion_tokens", "errors")
ADD_DEMAND = (
    "INSERT INTO {table} "
    "(deployment, minute, arrivals, active_s, peak_in_flight, prompt_tokens, completion_tokens, errors) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (deployment, minute) DO UPDATE SET "
    + ", ".join(f"{name} = {{table}}.{name} + excluded.{name}" for name in SUMMED)
    + ", peak_in_flight = CASE WHEN excluded.peak_in_flight > {table}.peak_in_flight "
    "THEN excluded.peak_in_flight ELSE {table}.peak_in_flight END"
)


class Recorder(threading.Thread):
    """`add` is called on the event loop, everything else in the thread."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        period_s: float = 1.0,
        keep: int = KEEP,
        trace: Callable[[list[Trip]], None] | None = None,
    ) -> None:
        """`trace`: who else wants to know of requests that are over."""
        super().__init__(name="gateway-records", daemon=True)
        self.demand = Demand()
        self.dropped = self._told = 0  # `add` counts too, and must not touch the metrics
        self._metrics = metrics
        self._trace = trace
        self._period_s = period_s
        self._new: deque[Trip] = deque(maxlen=keep)
        self._unwritten: deque[Trip] = deque(maxlen=keep)
        self._demand_at = 0.0
        self._stop_asked = threading.Event()
        self._failing = False

    @property
    def waiting(self) -> int:
        return len(self._new) + len(self._unwritten)

    def add(self, trip: Trip) -> None:
        if len(self._new) == self._new.maxlen:
            self.dropped += 1
        self._new.append(trip)

    def run(self) -> None:
        while not self._stop_asked.wait(RETRY_S if self._failing else self._period_s):
            close_old_connections()
            self.flush()
        close_old_connections()
        self.flush(demand=True)
        connection.close()

    def stop(self, wait_s: float = 5.0) -> None:
        """Write what is left, within `wait_s`."""
        self._stop_asked.set()
        self.join(wait_s)

    def flush(self, *, demand: bool = False) -> None:
        """Write what has gathered. A failure keeps it for the next time."""
        self._gather()
        try:
            while self._unwritten:
                batch = [self._unwritten[i] for i in range(min(BATCH, len(self._unwritten)))]
                self._drop(_insert(batch))
                for _ in batch:
                    self._unwritten.popleft()
            if demand or time.monotonic() - self._demand_at >= DEMAND_EVERY_S:
                self._demand_at = time.monotonic()
                self._write_demand()
        except Exception as error:
            if not self._failing:
                log.error("records cannot be written; they are kept and tried again", error=str(error))
            self._failing = True
            return
        if self._failing:
            log.info("records are written again", dropped=self.dropped)
        self._failing = False

    def _gather(self) -> None:
        moved = []
        while self._new:
            moved.append(self._new.popleft())
        assert self._unwritten.maxlen is not None
        self._drop(max(0, len(self._unwritten) + len(moved) - self._unwritten.maxlen))
        self._unwritten.extend(moved)
        try:
            self._metrics.observe(moved)
            if self._trace is not None:
                self._trace(moved)
        except Exception:
            log.exception("requests are not in the metrics or traces")

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._metrics.dropped.inc(self.dropped - self._told)
        self._told = self.dropped

    def _write_demand(self) -> None:
        minutes = self.demand.take(time.time())
        try:
            _add(minutes)
        except DatabaseError:
            self.demand.give_back(minutes)
            raise


def _insert(trips: list[Trip]) -> int:
    """Write all that the database takes; tells how many it does not."""
    try:
        _execute([_row(trip) for trip in trips])
    except Exception as error:
        if not _is_of_a_row(error):
            raise
        log.warning("a batch of records is written one by one", error=type(error).__name__)
        return _insert_each(trips)
    return 0


def _insert_each(trips: list[Trip]) -> int:
    """All or none: what is tried again must not be written twice."""
    refused = 0
    with transaction.atomic():
        known = set(ApiKey.objects.values_list("pk", flat=True))  # a key may have been deleted meanwhile
        for trip in trips:
            try:
                _execute([_row(trip, known)])
            except Exception as error:
                if not _is_of_a_row(error):
                    raise
                refused += 1
                # Its message might be of what a client sent.
                log.error("a record is dropped, for it cannot be written", request=trip.id, error=type(error).__name__)
    return refused


def _is_of_a_row(error: Exception) -> bool:
    """Whether it is a row that cannot be written, rather than the database that is away or not migrated."""
    return isinstance(error, DataError | IntegrityError) or not isinstance(error, DatabaseError)


def _execute(rows: list[tuple[object, ...]]) -> None:
    """One prepared statement for all: a fifth of the CPU of bulk_create, which is as much as serving costs."""
    table, quote = RequestRecord._meta.db_table, connection.ops.quote_name
    columns, marks = ", ".join(map(quote, COLUMNS)), ", ".join(["%s"] * len(COLUMNS))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {quote(table)} ({columns}) VALUES ({marks})", rows)  # noqa: S608


def _row(trip: Trip, known: Container[int] | None = None) -> tuple[object, ...]:
    """`known`: the keys that there are."""
    key = trip.key if known is None or trip.key in known else None
    return (
        connection.ops.adapt_datetimefield_value(trip.arrived), trip.id, key, _text(trip.deployment, 120), trip.kind,
        trip.streamed, str(trip.outcome), trip.status, _text(trip.error, 255), str(trip.path), _text(trip.prefill, 120),
        _text(trip.decode, 120), trip.attempts, trip.continued, _text(trip.continued_from, 255),
        bounded(trip.prompt_tokens), bounded(trip.completion_tokens), bounded(trip.cached_tokens),
        trip.prefill_ms, trip.transfer_ms, trip.ttft_ms, trip.itl_ms, trip.total_ms, trip.held_ms,
    )  # fmt: skip


def _text(text: str, most: int) -> str:
    """At most so many characters of `text`, and none that a database refuses."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "")[:most]


def _add(minutes: Minutes) -> None:
    """Several gateways add to the same rows, in one order, so that no two wait for each other."""
    table, adapt = DemandMinute._meta.db_table, connection.ops.adapt_datetimefield_value
    rows = [
        (
            deployment, adapt(datetime.fromtimestamp(at, UTC)), minute.arrivals, minute.active_s, minute.peak_in_flight,
            minute.prompt_tokens, minute.completion_tokens, minute.errors,
        )
        for (deployment, at), minute in sorted(minutes.items(), key=lambda one: one[0])
    ]  # fmt: skip
    if not rows:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(ADD_DEMAND.format(table=connection.ops.quote_name(table)), rows)
