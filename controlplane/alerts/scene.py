"""The fleet as rules look at it: read once a tick, in a handful of plain queries, however many GPUs there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.conf import settings

from controlplane.domain.alerting import Limits
from controlplane.domain.health import is_silent
from controlplane.fleet.models import Node
from controlplane.telemetry import latest
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.valkey import Unreachable

NODE_COLUMNS = ("id", "name", "labels", "last_seen", "draining", "clock_skew_s", "agent_version", "simulated")


class Needs(StrEnum):
    """What has to be known of a subject's node before silence about the subject means that it is well."""

    NOTHING = "nothing"
    REPORT = "report"
    FIGURES = "figures"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about. `node`: the one whose silence makes it unknown; None: nobody's."""

    type: str
    id: int
    name: str
    node: int | None
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of one subject; None: unknown. Its text is what people are told."""

    subject: Subject
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Watch:
    """What a rule wants to know of: values near its limits, and whatever has an open alert of it."""

    limits: Limits
    open_nodes: frozenset[int] = frozenset()  # of which something has an open alert

    def wants(self, value: float | None, node: int) -> bool:
        if value is None:
            return node in self.open_nodes
        return self.limits.is_near(value)


@dataclass(frozen=True, slots=True)
class NodeRow:
    id: int
    name: str
    labels: dict[str, str]
    last_seen: float
    draining: bool
    skew_s: float | None
    agent_version: str
    heard: bool

    def subject(self) -> Subject:
        return Subject("node", self.id, self.name, self.id, self.labels)

    def about(self, type_: str, pk: int, name: str, **labels: str) -> Subject:
        """Something of this node."""
        return Subject(type_, pk, f"{self.name}/{name}", self.id, {**self.labels, **labels})


@dataclass(slots=True)
class Scene:
    now: datetime
    nodes: dict[int, NodeRow] = field(default_factory=dict)  # that were ever heard
    live: dict[int, Latest] = field(default_factory=dict)  # of those that are heard, no older than silence is

    def is_unknown(self, node: int | None, needs: Needs) -> bool:
        """Whether nothing can be said of what is of that node. One that is gone has nothing to say any more."""
        if needs is Needs.NOTHING or node is None or node not in self.nodes:
            return False
        return not self.nodes[node].heard or (needs is Needs.FIGURES and node not in self.live)


def look(now: datetime) -> Scene:
    at = now.timestamp()
    rows = Node.objects.filter(revoked=False, last_seen__isnull=False).order_by("name").values_list(*NODE_COLUMNS)
    nodes = {row[0]: _node(row, at) for row in rows}
    return Scene(now, nodes, _live((node.id for node in nodes.values() if node.heard), at))


def _node(row: tuple[Any, ...], at: float) -> NodeRow:
    pk, name, labels, last_seen, draining, skew_s, agent_version, simulated = row
    seen = last_seen.timestamp()
    said = {**{str(key): str(value) for key, value in labels.items()}, "node": name}
    said |= {"simulated": "true"} if simulated else {}
    heard = not is_silent(seen, at, settings.SILENT_AFTER_S)
    return NodeRow(pk, name, said, seen, draining, skew_s, agent_version, heard)


def _live(nodes: Iterable[int], at: float) -> dict[int, Latest]:
    """Without Valkey nothing is known of figures, and their rules wait."""
    try:
        found = latest.read(nodes)
    except Unreachable:
        return {}
    return {node: seen for node, seen in found.items() if not is_silent(seen.seen, at, settings.SILENT_AFTER_S)}
