"""Takes what agents say of the weights on their nodes, and tells which models they are: the only writer of HeldWeights
and of what a node's row says of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from controlplane.fleet.models import HeldWeights, Node, RegisteredModel
from controlplane.fleet.observed import clean
from workers.contract import NodeReport
from workers.weights import Weights

COMPLETE = HeldWeights.State.COMPLETE
_COLUMNS = ["state", "bytes", "total_bytes", "used_at", "message", "checked_at"]


def take(node: Node, report: NodeReport) -> None:
    """With the node locked: what its agent says that it holds, where it says so."""
    if report.weights is None or not is_wanted(report, node):
        return
    said = {_key(one): one for one in report.weights.models}
    rows = {(row.source, tuple(row.revisions)): row for row in node.weights.all()}
    HeldWeights.objects.filter(pk__in=[row.pk for key, row in rows.items() if key not in said]).delete()
    changed = [row for key, row in rows.items() if key in said and _set(row, _values(said[key]))]
    HeldWeights.objects.bulk_update(changed, _COLUMNS)
    HeldWeights.objects.bulk_create(
        HeldWeights(node=node, source=source, revisions=list(revisions), **_values(one))
        for (source, revisions), one in said.items()
        if (source, revisions) not in rows
    )
    node.weights_mark, node.weights_left_out = clean(report.weights_mark, 64), report.weights.left_out
    node.save(update_fields=["weights_mark", "weights_left_out"])


def is_wanted(report: NodeReport, node: Node) -> bool:
    """Whether its agent holds what we have not been told."""
    return bool(report.weights_mark) and clean(report.weights_mark, 64) != node.weights_mark


def of_node(node: Node) -> list[tuple[RegisteredModel, HeldWeights]]:
    """The registered models whose weights lie there, whole or in part, by name."""
    held = list(node.weights.all())
    models = RegisteredModel.objects.filter(source__in={row.source for row in held})
    found = ((model, _of(model, held)) for model in models)
    return [(model, row) for model, row in found if row is not None]


def of_model(model: RegisteredModel) -> list[HeldWeights]:
    """One a node that holds its weights, whole or in part, by the node's name."""
    by_node = defaultdict(list)
    rows = HeldWeights.objects.filter(source=model.source).select_related("node").defer("node__spec")
    for row in rows.order_by("node__name"):
        by_node[row.node_id].append(row)
    return [row for rows in by_node.values() if (row := _of(model, rows)) is not None]


def nodes_holding(model: RegisteredModel) -> frozenset[int]:
    """Nodes on which an engine finds all of its weights."""
    rows = HeldWeights.objects.filter(source=model.source, state=COMPLETE)
    return frozenset(row.node_id for row in rows.only("node_id", "source", "revisions") if _is_of(row, model))


def _of(model: RegisteredModel, rows: Iterable[HeldWeights]) -> HeldWeights | None:
    """The row of those of one node that an engine of the model would use."""
    mine = [row for row in rows if _is_of(row, model)]
    return max(mine, key=lambda row: (row.state == COMPLETE, row.bytes), default=None)


def _is_of(row: HeldWeights, model: RegisteredModel) -> bool:
    if row.source != model.source:
        return False
    return model.kind == RegisteredModel.Kind.FOLDER or (model.revision or "main") in row.revisions


def _key(one: Weights) -> tuple[str, tuple[str, ...]]:
    return clean(one.source, 1024), tuple(clean(revision, 256) for revision in one.revisions)


def _values(one: Weights) -> dict[str, Any]:
    return {
        "state": one.state.value,
        "bytes": one.bytes,
        "total_bytes": one.total_bytes,
        "used_at": _moment(one.used_at),
        "message": clean(one.message, 256),
        "checked_at": _moment(one.checked_at),
    }


def _moment(unix_s: float) -> datetime | None:
    return datetime.fromtimestamp(unix_s, UTC) if 0 < unix_s < 4e9 else None


def _set(row: HeldWeights, values: Mapping[str, Any]) -> bool:
    changed = any(getattr(row, column) != value for column, value in values.items())
    for column, value in values.items():
        setattr(row, column, value)
    return changed
