"""Plain inserts of many rows: a model object for each would cost as much again as the database does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model

MAX_PARAMETERS = 20_000  # SQLite takes 32,766 in a statement, PostgreSQL 65,535


def insert(
    model: type[Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, anew: Sequence[str] = ()
) -> None:
    """`anew`: the key's columns; a row that is there already is written over."""
    if not rows:
        return
    at_once = max(1, MAX_PARAMETERS // len(columns))
    with connection.cursor() as cursor:
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            cursor.execute(
                _statement(model, columns, len(part), anew), [_plain(value) for row in part for value in row]
            )


def _statement(model: type[Model], columns: Sequence[str], count: int, anew: Sequence[str]) -> str:
    quote = connection.ops.quote_name
    row = f"({', '.join(['%s'] * len(columns))})"
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(map(quote, columns))}) VALUES "  # noqa: S608
    sql += ", ".join([row] * count)
    if anew:
        taken = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in columns if name not in anew)
        sql += f" ON CONFLICT ({', '.join(map(quote, anew))}) DO UPDATE SET {taken}"
    return sql


def _plain(value: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
