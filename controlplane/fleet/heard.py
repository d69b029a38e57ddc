"""What a report that says nothing new is answered from, without the database: the nodes by their tokens, as they were a
moment ago, and the moments at which they were heard, which reach their rows together.

One thread of the web process (`Keeper`) writes and reads for all nodes at once. Without it, as in tests, nothing is
known here, and every report takes the long way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, connections, transaction

from controlplane.periodic import Periodic

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
STALE_S = 5.0  # older than this it answers nobody: the database is away, and agents are told so
NODES = "SELECT token_hash, id, revoked, instance, boot, last_seq, last_seen, generation, clock_skew_s FROM fleet_node"
SEEN = "UPDATE fleet_node SET last_seen = %s WHERE id = %s AND instance = %s AND last_seen < %s"
TOUCH = (
    "UPDATE fleet_node SET last_seen = %s, last_seq = %s, clock_skew_s = %s "
    "WHERE id = %s AND instance = %s AND boot = %s AND last_seq < %s"
)


@dataclass(slots=True)
class Entry:
    """A node's row, as far as it decides about a report. `last_seen`: unix seconds; None: never."""

    id: int
    is_usable: bool  # neither revoked nor written since it was read
    instance: str
    boot: str
    last_seq: int
    last_seen: float | None
    generation: int
    skew_s: float


@dataclass(frozen=True, slots=True)
class Touch:
    instance: str
    boot: str
    seq: int
    at: float
    skew_s: float


class Heard:
    """All of it for one process. Calls from the event loop never wait."""

    def __init__(self) -> None:
        self._by_token: dict[str, Entry] = {}
        self._by_id: dict[int, Entry] = {}
        self._read_at = 0.0  # monotonic
        self._touches: dict[int, Touch] = {}
        self._seen: dict[int, tuple[str, float]] = {}

    def find(self, token_hash: str) -> Entry | None:
        """None where it is not known, or what is known is too old to go by."""
        if time.monotonic() - self._read_at > STALE_S:
            return None
        return self._by_token.get(token_hash)

    def touch(self, node_id: int, touch: Touch) -> None:
        """The newest of a node is written with those of all others."""
        self._touches[node_id] = touch

    def see(self, node_id: int, instance: str, at: float) -> None:
        """The node was heard, but what it said could not be taken in: it isn't silent, and its report stays news."""
        self._seen[node_id] = instance, at

    def forget(self, node_id: int) -> None:
        """Its row was written just now: what is known of it is old, until the next look."""
        self._touches.pop(node_id, None)
        if (entry := self._by_id.pop(node_id, None)) is not None:
            entry.is_usable = False

    def write(self) -> dict[int, Touch]:
        """Write the touches and give them back. A row that a newer report or another agent has reached stays."""
        touches, self._seen, seen = dict(self._touches), {}, self._seen
        if not touches and not seen:
            return {}
        rows = [
            (_moment(one.at), one.seq, one.skew_s, id, one.instance, one.boot, one.seq) for id, one in touches.items()
        ]
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(TOUCH, rows)
            cursor.executemany(SEEN, [(_moment(at), id, who, _moment(at)) for id, (who, at) in seen.items()])
        for id, one in touches.items():
            if self._touches.get(id) is one:
                del self._touches[id]
            if (entry := self._by_id.get(id)) is not None:  # until the next look tells whether it did reach the row
                entry.last_seq, entry.last_seen = one.seq, one.at
        return touches

    def read(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(NODES)
            rows = cursor.fetchall()
        by_token = {
            token: Entry(id, not revoked, instance, boot, seq, _seconds(seen), generation, skew or 0.0)
            for token, id, revoked, instance, boot, seq, seen, generation, skew in rows
        }
        self._by_token, self._by_id = by_token, {entry.id: entry for entry in by_token.values()}
        self._read_at = time.monotonic()

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]


heard = Heard()


class Keeper:
    """Does so each second. `written` gets what was written, before the rows are read again."""

    def __init__(self, written: Callable[[dict[int, Touch]], None], *, known: Heard = heard) -> None:
        self._written, self._known = written, known
        self._failing = False
        self._thread = Periodic("fleet-heard", LOOK_EVERY_S, self.look, connections.close_all)
        self.start, self.stop = self._thread.start, self._thread.stop

    def look(self) -> None:
        close_old_connections()
        try:
            self._written(self._known.write())
            self._known.read()
        except DatabaseError as error:
            if not self._failing:
                log.error("nodes cannot be read; reports go the long way, or are refused", error=str(error))
            self._failing = True
            return
        self._failing = False


def is_silent(entry: Entry, at: float) -> bool:
    return entry.last_seen is None or at - entry.last_seen > settings.SILENT_AFTER_S


def _moment(at: float) -> object:
    return connection.ops.adapt_datetimefield_value(datetime.fromtimestamp(at, UTC))


def _seconds(moment: datetime | str | None) -> float | None:
    if isinstance(moment, str):  # SQLite keeps text
        moment = datetime.fromisoformat(moment)
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
