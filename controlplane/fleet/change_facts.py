"""A change as people and programs see it: its row, and how far the step that is under way has come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from controlplane.domain import health
from controlplane.fleet import verified
from controlplane.fleet.facts import has_process, partition_view
from controlplane.fleet.models import Change, Partition
from controlplane.fleet.services import change_pool, checks
from controlplane.fleet.services.change_steps import DONE, FAILED, RUNNING
from workers.contract import Phase


def facts(change: Change, now: datetime) -> dict[str, Any]:
    """The whole change. `undoes` and `undone_by` are change ids."""
    undone_by = getattr(change, "undone_by", None) if change.pk else None
    return {
        **brief(change),
        "backwards": change.backwards,
        "force": change.force,
        "version": change.version,
        "created_at": change.created_at,
        "finished_at": change.finished_at,
        "undoes": change.undoes_id,
        "undone_by": undone_by.pk if undone_by else None,
        "undoable": change.state == Change.State.DONE
        and undone_by is None
        and bool(change.moves or change_pool.rows_of(change)),
        "node": change.node_id,
        "moves": change.moves,
        "steps": [{**step, "progress": _progress(step, now)} for step in change.steps],
    }


def brief(change: Change) -> dict[str, Any]:
    """What a list or the live view shows."""
    return {
        "id": change.pk,
        "kind": change.kind,
        "state": change.state,
        "reason": change.reason,
        "actor": change.actor_name,
        "message": change.message,
        "steps_done": sum(1 for step in change.steps if step["state"] == DONE),
        "steps_total": sum(1 for step in change.steps if step["state"] != FAILED or not change.is_open),
        "partitions": [move["partition"]["id"] for move in change.moves],
    }


def open_changes() -> Iterable[Change]:
    return Change.objects.filter(state__in=[Change.State.RUNNING, Change.State.STOPPED]).order_by("-pk")


def _progress(step: dict[str, Any], now: datetime) -> str:
    """For the step under way: what its engine does at this moment, in words."""
    if step["state"] != RUNNING:
        return ""
    row = Partition.objects.select_related("node", "deployment__model").filter(pk=step["partition"]).first()
    if row is None:
        return "The partition is gone."
    age = f"{max(0.0, (now - row.phase_since).total_seconds()):.0f} s" if row.phase_since else ""
    if row.deployment is not None and health.is_confirmed(partition_view(row)):
        return "confirmed" if verified.is_verified(row) else "ready; the gateway tries it"
    if row.phase in (Phase.DRAINING, Phase.STOPPING):
        return f"{row.phase} for {age}"
    if row.phase == Phase.STARTING and row.observed_generation == row.generation:
        usual = checks.usual_start_s(row.deployment, row.node) if row.deployment else None
        return f"starting, {age}" + (f" of about {usual:.0f} s" if usual is not None else "")
    if row.message:
        return row.message
    return "waiting for the node" if has_process(row) else "waiting to start"
