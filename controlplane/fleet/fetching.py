"""What nodes are to fetch ahead of its use, and what their agents say of it: the only writer of those columns of
WantedWeights and Node that say how it stands."""

from __future__ import annotations

from typing import Any

from django.db.models import F

from controlplane.fleet import observed
from controlplane.fleet.models import Node, RegisteredModel, WantedWeights
from workers.contract import NodeReport
from workers.weights import MOST_FETCHES, FetchWanted

_STANDING = ("state", "bytes", "total_bytes", "message")


def wanted(node: Node) -> tuple[FetchWanted, ...]:
    """For the node's spec: what people asked for first, then the likeliest. Nothing where the node is to be empty."""
    if node.revoked or node.draining:
        return ()
    rows = WantedWeights.objects.filter(node=node, model__kind=RegisteredModel.Kind.HUGGING_FACE)
    ordered = rows.order_by(F("chance").desc(nulls_first=True), "pk")  # who asked has no chance
    found = ordered.values_list("model__source", "model__revision")
    distinct = dict.fromkeys(FetchWanted(source=source, revision=revision) for source, revision in found)
    return tuple(distinct)[:MOST_FETCHES]


def take(node: Node, report: NodeReport) -> None:
    """With the node locked: how far what is wanted there is. Of what lies there the agent says nothing."""
    said = report.fetch
    if said is None:
        return
    told = {(one.source, one.revision): one for one in said.fetches}
    changed = []
    for row in WantedWeights.objects.filter(node=node).select_related("model"):
        one = told.get((row.model.source, row.model.revision))
        values: dict[str, Any] = {"state": "", "bytes": 0, "total_bytes": None, "message": ""}
        if one is not None:
            message = observed.clean(one.message, 256)
            values = {"state": one.state.value, "bytes": one.bytes, "total_bytes": one.total_bytes, "message": message}
        if any(getattr(row, column) != value for column, value in values.items()):
            for column, value in values.items():
                setattr(row, column, value)
            changed.append(row)
    WantedWeights.objects.bulk_update(changed, _STANDING)
    room, why_not = said.room_bytes, observed.clean(said.why_not, 256)
    if (node.fetch_room_bytes, node.fetch_why_not) != (room, why_not):
        node.fetch_room_bytes, node.fetch_why_not = room, why_not
        node.save(update_fields=["fetch_room_bytes", "fetch_why_not"])


def news(report: NodeReport) -> tuple[Any, ...] | None:
    """What people wait for; bytes may lag a few seconds."""
    said = report.fetch
    return None if said is None else (said.why_not, [(one.source, one.revision, one.state) for one in said.fetches])
