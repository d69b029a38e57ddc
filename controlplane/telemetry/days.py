"""On PostgreSQL the raw and the minute's rows lie in a table a day, so that a day goes at once and leaves no holes. It
is made ahead and dropped when its time is over; what comes of a day without one lies in `_default` until it is made. On
SQLite all rows of a kind are one table, and nothing here does anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import Model

from controlplane.telemetry.models import EngineMinute, EngineSample, GpuMinute, GpuSample

log = structlog.get_logger(__name__)
DAILY: tuple[type[Model], ...] = (GpuSample, EngineSample, GpuMinute, EngineMinute)
AHEAD = 3  # days: as long may the beat be away before rows lie in `_default`
WAIT_MS = 2000  # for whoever reads or writes; then the next run tries again
DAY = timedelta(days=1)


def are_kept(model: type[Model]) -> bool:
    return connection.vendor == "postgresql" and model in DAILY


def make_ahead(now: datetime) -> None:
    """Today's and the next days' tables, where they are not there."""
    for model in DAILY:
        if are_kept(model):
            there = {day for _, day in _tables(model)}
            for day in (_day(now) + DAY * n for n in range(AHEAD + 1)):
                if day not in there:
                    _patiently(model, _make, day)


def drop(model: type[Model], before: datetime) -> None:
    """Whole days that ended by then. Of `_default`, which should be empty, the rows."""
    for name, day in _tables(model):
        if day + DAY <= before:
            _patiently(model, _drop, name)
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {_table(model)}_default WHERE at < %s", [before])  # noqa: S608


def _tables(model: type[Model]) -> list[tuple[str, datetime]]:
    sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
    with connection.cursor() as cursor:
        cursor.execute(sql, [_table(model)])
        names = sorted(name for (name,) in cursor.fetchall())
    ends = [(name, name.rpartition("_")[2]) for name in names]
    return [(name, datetime.strptime(end, "%Y%m%d").replace(tzinfo=UTC)) for name, end in ends if end.isdigit()]


def _make(cursor: Any, model: type[Model], day: datetime) -> None:
    """Attached rather than made in place: that does not wait for those who read or write other days."""
    table, within = _table(model), [day.isoformat(), (day + DAY).isoformat()]
    name, rest = f"{table}_{day:%Y%m%d}", f"{table}_default"
    cursor.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)")
    cursor.execute(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE")
    moved = f"WITH moved AS (DELETE FROM {rest} WHERE at >= %s AND at < %s RETURNING *)"  # noqa: S608
    cursor.execute(f"{moved} INSERT INTO {name} SELECT * FROM moved", within)  # noqa: S608
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)", within)


def _drop(cursor: Any, _: type[Model], name: str) -> None:
    cursor.execute(f"DROP TABLE {name}")


def _patiently(model: type[Model], act: Any, what: Any) -> None:
    """A lock that others hold for long would make all others wait behind us."""
    try:
        with _with_little_wait() as cursor:
            act(cursor, model, what)
    except OperationalError as error:
        log.info("the table of a day waits for the next run", table=_table(model), error=str(error))


@contextmanager
def _with_little_wait() -> Iterator[Any]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
        yield cursor


def _table(model: type[Model]) -> str:
    return model._meta.db_table


def _day(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
