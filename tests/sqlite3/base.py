"""SQLite as in production, but that a test's database can be emptied: the audit trail refuses any DELETE."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base, operations

from controlplane.audit import append_only


class DatabaseOperations(operations.DatabaseOperations):
    def sql_flush(self, *args: Any, **kwargs: Any) -> list[str]:
        return [*append_only.DROP["sqlite"], *super().sql_flush(*args, **kwargs), *append_only.MAKE["sqlite"]]


class DatabaseWrapper(base.DatabaseWrapper):
    ops_class = DatabaseOperations
