"""A partition belongs to one open change at most, and while it does nobody else may change it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from controlplane.fleet.errors import Conflict
from controlplane.fleet.models import Change

OPEN = (Change.State.RUNNING, Change.State.STOPPED)


def holder_of(partitions: Collection[int], *, but: int | None = None) -> Change | None:
    """The open change that moves one of these, if any. Open ones are few."""
    for change in Change.objects.filter(state__in=OPEN).exclude(pk=but):
        if any(name["id"] in partitions for name in _held(change)):
            return change
    return None


def held() -> set[int]:
    """Every partition of an open change."""
    return {name["id"] for change in Change.objects.filter(state__in=OPEN) for name in _held(change)}


def require_free(partitions: Collection[int], *, but: int | None = None) -> None:
    """Conflict where another change is at work on one of these. Call it with their nodes locked."""
    if (change := holder_of(partitions, but=but)) is None:
        return
    names = ", ".join(name["name"] for name in _held(change) if name["id"] in partitions)
    message = (
        f"{names} is part of change {change.pk} by {change.actor_name}, which is {change.get_state_display().lower()}."
    )
    fix = "Wait until it is done." if change.state == Change.State.RUNNING else "Resume it or roll it back first."
    raise Conflict(message, fix)


def _held(change: Change) -> list[dict[str, Any]]:
    """What it moves and what it starts again."""
    return [row["partition"] for row in (*change.moves, *change.plan.get("recycles", []))]
