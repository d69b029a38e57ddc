"""The list of steps that a change carries: what waits, runs, is done or failed. Rows of Change.steps are dicts with

number, partition, name, action, text, expected_s (as in the preview), state, back (on the way back), began_at and
ended_at (ISO 8601), message, deadline_s, and restarts: the engine's count when the step began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from controlplane.fleet.models import Change, Partition

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


def planned(row: Mapping[str, Any]) -> dict[str, Any]:
    """A step of the preview, not taken yet."""
    return {**row, "state": WAITING, "back": False, "began_at": None, "ended_at": None, "message": ""}


def running(change: Change) -> dict[str, Any] | None:
    """The step that was taken and is not judged yet: one at most."""
    return next((entry for entry in change.steps if entry["state"] == RUNNING), None)


def begin(change: Change, row: Partition, to: str) -> dict[str, Any]:
    """The waiting step of this partition, now behind those taken before it; a new one where none waits."""
    place = next((n for n, entry in enumerate(change.steps) if _waits(entry) and entry["partition"] == row.pk), None)
    if place is None:
        new = {
            "partition": row.pk,
            "name": str(row),
            "text": f"Lead {row} back to {to}.",
            "expected_s": None,
            "action": "",
        }
        entry = {**planned(new), "back": change.backwards}
    else:
        entry = change.steps.pop(place)
    first = next((n for n, other in enumerate(change.steps) if _waits(other)), len(change.steps))
    change.steps.insert(first, entry)
    for number, other in enumerate(change.steps, 1):
        other["number"] = number
    return entry


def again(change: Change) -> None:
    """What failed last gets another chance: its engine's restarts count anew."""
    failed = [entry for entry in change.steps if entry["state"] == FAILED and entry["back"] == change.backwards]
    for entry in failed[-1:]:
        restarts = Partition.objects.filter(pk=entry["partition"]).values_list("restarts", flat=True).first()
        entry.update({"state": RUNNING, "began_at": timezone.now().isoformat(), "ended_at": None, "message": ""})
        entry["restarts"] = restarts or 0


def turn_back(change: Change) -> None:
    """Forget the steps that are not taken yet; one that is under way ends where it is."""
    drop_waiting(change)
    if entry := running(change):
        entry |= {"state": FAILED, "ended_at": timezone.now().isoformat(), "message": "Rolled back."}


def drop_waiting(change: Change) -> None:
    change.steps = [entry for entry in change.steps if not _waits(entry)]


def _waits(entry: Mapping[str, Any]) -> bool:
    return bool(entry["state"] == WAITING)
