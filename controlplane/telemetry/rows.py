"""Plain inserts of many rows: a model object for each would cost as much again as the database does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, Model

MAX_PARAMETERS = 20_000  # PostgreSQL takes 65,535 in a statement


def insert(
    model: type[Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, anew: Sequence[str] = ()
) -> None:
    """`anew`: the key's columns; a row that is there already is written over."""
    if not rows:
        return
    plain = _plain(model, columns, rows)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":  # a long statement costs it more to read
            cursor.executemany(_statement(model, columns, 1, anew), plain)
            return
        at_once = max(1, MAX_PARAMETERS // len(columns))
        for first in range(0, len(plain), at_once):
            part = plain[first : first + at_once]
            cursor.execute(_statement(model, columns, len(part), anew), list(chain.from_iterable(part)))


def _statement(model: type[Model], columns: Sequence[str], count: int, anew: Sequence[str]) -> str:
    quote = connection.ops.quote_name
    row = f"({', '.join(['%s'] * len(columns))})"
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(map(quote, columns))}) VALUES "  # noqa: S608
    sql += ", ".join([row] * count)
    if anew:
        taken = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in columns if name not in anew)
        sql += f" ON CONFLICT ({', '.join(map(quote, anew))}) DO UPDATE SET {taken}"
    return sql


def _plain(model: type[Model], columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Moments as the database takes them; rows have few different ones."""
    places = [at for at, name in enumerate(columns) if isinstance(model._meta.get_field(name), DateTimeField)]
    plain = list(map(list, rows))
    for place in places:
        known = {moment: connection.ops.adapt_datetimefield_value(moment) for moment in {row[place] for row in rows}}
        for row in plain:
            row[place] = known[row[place]]
    return plain
