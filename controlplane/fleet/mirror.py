"""All nodes with what lies on them, held in memory and read again only where the database has something else.

Whether it has is asked in plain SQL: one row of the node, and one of sums over its GPUs and its partitions. Sums may
miss a change, so a share of the nodes is read again each second whatever they say. Where nothing was committed since
the last look, which both databases can tell, there is nothing to ask."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from controlplane.fleet.models import Node

REREAD = 60  # seconds in which every node is read again
CHUNK = 500  # of ids in one query
# What a report changes without changing the node: set on the row at hand.
PASSING = ("last_seen", "clock_skew_s")
LASTING = (
    "name", "schedulable", "draining", "drain_began_at", "drain_deadline_at", "cordoned_before", "revoked",
    "generation", "observed_generation", "period_s", "simulated", "labels", "agent_version", "engine_version",
    "driver",
)  # fmt: skip
NODES = f"SELECT id, {', '.join((*PASSING, *LASTING))} FROM fleet_node ORDER BY name"  # noqa: S608 - our own words
# Sums, weighted so that two rows that change places do not add up to the same, and small enough for 64 bits.
GPUS = """
SELECT node_id, COUNT(*), SUM((id % 997 + 1) * (
    COALESCE(partition_id, 0) % 1000003 * 8 + CASE WHEN present THEN 1 ELSE 0 END
    + CASE WHEN {foreign} THEN 2 ELSE 0 END + CASE health WHEN 'ok' THEN 0 WHEN 'degraded' THEN 3 ELSE 4 END
    + {index} % 1000003 * 16 + memory_bytes % 1000003
    + LENGTH(health_detail) * 17 + LENGTH(name) * 19 + LENGTH(uuid) * 23 + LENGTH(flag) * 29
)) FROM fleet_gpu GROUP BY node_id
"""
PARTITIONS = """
SELECT node_id, COUNT(*), SUM((id % 997 + 1) * (
    generation % 1000003 * 3 + observed_generation % 1000003 * 5 + COALESCE(deployment_id, 0) % 1000003 * 8
    + CASE phase WHEN '' THEN 0 WHEN 'starting' THEN 11 WHEN 'ready' THEN 13 WHEN 'draining' THEN 17
        WHEN 'stopping' THEN 19 WHEN 'asleep' THEN 23 ELSE 29 END
    + CASE role WHEN '' THEN 0 WHEN 'prefill' THEN 31 WHEN 'decode' THEN 37 ELSE 41 END
    + pid % 1000003 * 43 + restarts % 1000003 * 47 + verified_generation % 1000003 * 61
    + failed_generation % 1000003 * 67 + verify_failures % 1000003 * 71
    + LENGTH(message) * 53 + LENGTH(name) * 59 + LENGTH(verify_message) * 73 + LENGTH(endpoint) * 79
)), MAX(phase_since) FROM fleet_partition GROUP BY node_id
"""
DEPLOYMENTS = "SELECT id, name FROM fleet_deployment"


class Mirror:
    """Not for several threads at once. `nodes` are by id, in the order of their names, with gpus and partitions (and
    their deployments) prefetched; a node that was read again is another object."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self._marks: dict[int, tuple[Any, ...]] = {}
        self._names: dict[int, str] = {}
        self._state: object = None
        self._second = int(time.time())

    def look(self) -> set[int]:
        """Catch up with the database; the nodes that were read again."""
        state = _state()
        if state is not None and state == self._state:
            return set()
        due, self._state = self._due(time.time()), None
        with connection.cursor() as cursor:
            rows = _all(cursor, NODES)
            gpus = {row[0]: row[1:] for row in _all(cursor, _quoted(GPUS))}
            partitions = {row[0]: row[1:] for row in _all(cursor, PARTITIONS)}
            names = dict(_all(cursor, DEPLOYMENTS))
        if any(names.get(pk, name) != name for pk, name in self._names.items()):
            self._marks.clear()  # a deployment goes by another name
        first = 1 + len(PASSING)
        marks = {row[0]: (row[first:], gpus.get(row[0]), partitions.get(row[0])) for row in rows}
        anew = {pk for pk, mark in marks.items() if self._marks.get(pk) != mark or pk % REREAD in due}
        read = _read(anew)
        for pk in read.keys() & self.nodes.keys():
            _let_go(self.nodes[pk])
        self._marks, self._names = marks, names
        self.nodes = {row[0]: self._row(row, read) for row in rows if row[0] in read or row[0] not in anew}
        self._state = state
        return read.keys() & self.nodes.keys()

    def _due(self, now: float) -> set[int]:
        """The shares that are to be read again: one for each second since the last look."""
        second, before = int(now), self._second
        self._second = second
        return {at % REREAD for at in range(max(before, second - REREAD) + 1, second + 1)}

    def _row(self, row: tuple[Any, ...], read: dict[int, Node]) -> Node:
        if (node := read.get(row[0])) is None:
            node = self.nodes[row[0]]
            node.last_seen, node.clock_skew_s = _aware(row[1]), row[2]
        return node


def _state() -> object:
    """What is another once anything was committed; None where that cannot be told, as within a transaction."""
    if connection.in_atomic_block:
        return None
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":  # others' changes, and the own ones of this connection
            cursor.execute("PRAGMA data_version")
            return (connection.connection, cursor.fetchone(), connection.connection.total_changes)
        cursor.execute("SELECT pg_current_snapshot()::text")
        return cursor.fetchone()


def _read(pks: Iterable[int]) -> dict[int, Node]:
    """Those that are still there. In pieces: a database takes so many parameters and no more."""
    wanted = sorted(pks)
    rows = Node.objects.defer("spec").prefetch_related("gpus", "partitions__deployment")
    pieces = (rows.filter(pk__in=wanted[at : at + CHUNK]) for at in range(0, len(wanted), CHUNK))
    return {node.pk: node for piece in pieces for node in piece}


def _let_go(node: Node) -> None:
    """Its GPUs and partitions know it, and it them: only a full collection, which seldom comes, would free them."""
    getattr(node, "_prefetched_objects_cache", {}).clear()


def _quoted(sql: str) -> str:
    """Two columns are named as words of SQL."""
    return sql.format(**{name: connection.ops.quote_name(name) for name in ("foreign", "index")})


def _all(cursor: Any, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    return cursor.fetchall()


def _aware(moment: datetime | None) -> datetime | None:
    """SQLite gives moments without a zone; all are UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
