"""The fleet as this process knows it: the mirror of its rows joined with the latest figures, each read when it changed.

One for the process: those who load by REST and the frames look through the same eyes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from django.conf import settings

from controlplane.domain import health
from controlplane.fleet import brake
from controlplane.fleet.brake import Brake
from controlplane.fleet.mirror import Mirror
from controlplane.fleet.models import Node
from controlplane.telemetry import last_rows, node_shape
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.node_object import LiveNode

# Gets the ids of all nodes, and of those without figures; gives what is newer of some, or None where nobody can tell.
Read = Callable[[Collection[int], Collection[int]], Mapping[int, Latest] | None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes at one moment, by id, in the order of their names. A node or a shape that has not changed since an
    earlier look is the same object."""

    at: float
    nodes: dict[int, LiveNode]
    brake: Brake


class Picture:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mirror = Mirror()
        self._nodes: dict[int, LiveNode] = {}
        self._silent: dict[int, bool] = {}
        self._anew: set[int] = set()  # read again, but not looked at yet: a look may fail half way

    def look(self, read: Read) -> Fleet:
        """The fleet now. A node that was heard once and has no figures gets those of its last database rows; all have
        them where `read` gives None."""
        with self._lock:
            self._anew |= self._mirror.look()
            rows = self._mirror.nodes
            lacking = {pk for pk in rows if pk not in self._nodes or self._nodes[pk].figures is None}
            given = read(rows.keys(), lacking)
            missing = rows.keys() if given is None else lacking - given.keys()
            at, found = time.time(), {**(given or {}), **_last_rows(rows[pk] for pk in missing)}
            self._nodes = {pk: self._node(row, found.get(pk), pk in self._anew, at) for pk, row in rows.items()}
            self._silent = {pk: self._silent[pk] for pk in rows}
            self._anew.clear()
            return Fleet(at=at, nodes=self._nodes, brake=brake.state(nodes=rows.values()))

    def _node(self, row: Node, given: Latest | None, is_anew: bool, at: float) -> LiveNode:
        """What is at hand already, where nothing of it changed."""
        held = self._nodes.get(row.pk)
        figures = _newer(held.figures if held else None, given)
        seen = _last_seen(row, figures)
        silent = health.is_silent(seen, at, settings.SILENT_AFTER_S)
        keeps = held is not None and not is_anew and silent == self._silent[row.pk]
        if keeps and held is not None and held.last_seen == seen and held.figures is figures:
            return held
        self._silent[row.pk] = silent
        shape = held.shape if keeps and held is not None else node_shape.shape(row, seen, at)
        if held is not None and shape == held.shape:
            shape = held.shape  # its rows were read again and said the same
        return LiveNode(shape=shape, last_seen=seen, skew_s=row.clock_skew_s, figures=figures)


def _newer(held: Latest | None, given: Latest | None) -> Latest | None:
    """The same object for the same report, whichever way it was read."""
    return held if given is None or (held is not None and held.seen == given.seen) else given


def _last_rows(rows: Iterable[Node]) -> dict[int, Latest]:
    return last_rows.read([row for row in rows if row.last_seen is not None])


def _last_seen(row: Node, figures: Latest | None) -> float | None:
    """The row's is written in batches; the figures may be newer."""
    seen = [at for at in (row.last_seen and row.last_seen.timestamp(), figures and figures.seen) if at]
    return max(seen, default=None)
