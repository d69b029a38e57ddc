"""The fleet as it is now: rows of the database joined with the latest figures, for REST and the websocket frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.fleet import brake, change_facts, versions
from controlplane.fleet.brake import Brake
from controlplane.fleet.models import Node
from controlplane.telemetry import head, last_rows, latest, node_object, valkey
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.node_object import LiveNode

LIVE, DATABASE = "live", "database"

RequestSummary = Callable[[], Mapping[str, Any]]

# What is said of requests where nobody can tell; gateway.records.live_summary fills it in.
REQUESTS_UNKNOWN: dict[str, Any] = {
    "active_models": None,
    "rps": None,
    "ttft_ms": {"p50": None, "p95": None},
    "itl_ms": {"p50": None, "p95": None},
    "tokens_out_per_s": None,
    "window_s": None,
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes at one moment. `figures` are those the nodes were built with."""

    at: float
    nodes: dict[int, LiveNode]
    figures: dict[int, Latest]
    brake: Brake


def snapshot(*, summary: RequestSummary | None = None, endpoints: bool = False) -> dict[str, Any]:
    """Everything, as GET /api/v1/live gives it. `endpoints`: with the engines' addresses, for operators."""
    rows = node_rows()
    try:
        # The place is read before the figures: frames after it may repeat what is here, never miss any.
        source, place, figures = LIVE, head.read(), latest.read(row.pk for row in rows)
    except valkey.Unreachable:
        source, place, figures = DATABASE, head.NOWHERE, {}
    fleet = build(rows, figures, time.time())
    return {
        "seq": place.seq,
        "epoch": place.epoch,
        "at": fleet.at,
        "source": source,
        "nodes": [node.at(fleet.at, endpoints=endpoints) for node in fleet.nodes.values()],
        "summary": summarize(fleet, summary),
        "brake": fleet.brake.to_dict(),
        **intent(),
    }


def intent() -> dict[str, Any]:
    """The fleet's version, and the changes that are not at their end."""
    changes = [change_facts.brief(change) for change in change_facts.open_changes()]
    return {"version": versions.current(), "changes": changes}


def node_rows() -> list[Node]:
    """The whole fleet in four queries, however large."""
    nodes = Node.objects.defer("spec").prefetch_related("gpus", "partitions__deployment")
    return list(nodes)


def build(rows: Iterable[Node], figures: Mapping[int, Latest], at: float) -> Fleet:
    """Join. A node that was heard once but has no figures gets those of its last database rows."""
    rows = list(rows)
    missing = [row for row in rows if row.pk not in figures and row.last_seen is not None]
    figures = {**figures, **last_rows.read(missing)}
    nodes = {row.pk: node_object.build(row, figures.get(row.pk), at) for row in rows}
    return Fleet(at=at, nodes=nodes, figures=figures, brake=brake.state(nodes=rows))


def summarize(fleet: Fleet, requests: RequestSummary | None = None) -> dict[str, Any]:
    gpus = [gpu for node in fleet.nodes.values() for gpu in node.facts["gpus"]]
    assigned = {
        gpu
        for node in fleet.nodes.values()
        for partition in node.facts["partitions"]
        if partition["deployment"] is not None
        for gpu in partition["gpus"]
    }
    unhealthy = {gpu["id"] for gpu in gpus if gpu["health"] != "ok" or not gpu["present"]}
    told = requests() if requests else {}
    return {
        "gpus": {
            "total": len(gpus),
            "assigned": len(assigned),
            "idle": sum(1 for gpu in gpus if gpu["id"] not in assigned and gpu["id"] not in unhealthy),
            "unhealthy": len(unhealthy),
        },
        "nodes": {
            "total": len(fleet.nodes),
            "silent": sum(1 for node in fleet.nodes.values() if node.facts["status"] in ("silent", "never_seen")),
        },
        **{name: told.get(name, unknown) for name, unknown in REQUESTS_UNKNOWN.items()},
    }
