"""The fleet as it is now, for REST and the websocket frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.fleet import change_facts, versions
from controlplane.telemetry import head, latest, valkey
from controlplane.telemetry.picture import Fleet, Picture

LIVE, DATABASE = "live", "database"

RequestSummary = Callable[[], Mapping[str, Any]]

# What is said of requests where nobody can tell; gateway.summary.recent_summary fills it in.
REQUESTS_UNKNOWN: dict[str, Any] = {
    "active_models": None,
    "rps": None,
    "ttft_ms": {"p50": None, "p95": None},
    "itl_ms": {"p50": None, "p95": None},
    "tokens_out_per_s": None,
    "window_s": None,
}


picture, _figures = Picture(), latest.Reader()  # the one is used in the lock of the other
_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Look:
    """`source`: LIVE or DATABASE, where the figures come from."""

    source: str
    place: head.Place
    fleet: Fleet


def snapshot(*, summary: RequestSummary | None = None, endpoints: bool = False) -> bytes:
    """Everything as JSON, as GET /api/v1/live gives it. `endpoints`: with the engines' addresses, for operators."""
    found = look()
    fleet, place = found.fleet, found.place
    head = _json({"seq": place.seq, "epoch": place.epoch, "at": fleet.at, "source": found.source})
    rest = _json({"summary": summarize(fleet, summary), "brake": fleet.brake.to_dict(), **intent()})
    nodes = b",".join([node.text(fleet.at, endpoints=endpoints) for node in fleet.nodes.values()])
    return b'%b,"nodes":[%b],%b' % (head[:-1], nodes, rest[1:])


def look() -> Look:
    """All nodes with their latest figures; those of the database where Valkey cannot be reached."""
    try:
        # The place is read before the figures: frames after it may repeat what is here, never miss any.
        place = head.read()
        return Look(LIVE, place, picture.look(lambda nodes, _: _figures.read(nodes)))
    except valkey.Unreachable:
        return Look(DATABASE, head.NOWHERE, picture.look(lambda *_: None))


def intent() -> dict[str, Any]:
    """The fleet's version, and the changes that are not at their end."""
    changes = [change_facts.brief(change) for change in change_facts.open_changes()]
    return {"version": versions.current(), "changes": changes}


def summarize(fleet: Fleet, requests: RequestSummary | None = None) -> dict[str, Any]:
    shapes = [node.shape for node in fleet.nodes.values()]
    assigned, idle, unhealthy = (sum(shape.counts[place] for shape in shapes) for place in range(3))
    told = requests() if requests else {}
    return {
        "gpus": {
            "total": sum(len(shape.gpus) for shape in shapes),
            "assigned": assigned,
            "idle": idle,
            "unhealthy": unhealthy,
        },
        "nodes": {
            "total": len(shapes),
            "silent": sum(1 for shape in shapes if shape.facts["status"] in ("silent", "never_seen")),
        },
        **{name: told.get(name, unknown) for name, unknown in REQUESTS_UNKNOWN.items()},
    }
