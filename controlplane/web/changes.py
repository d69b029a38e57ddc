"""Changes as the pages show them: the fleet's facts of one, with the plan it was applied with."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from controlplane.fleet import change_facts
from controlplane.fleet.models import Change

NEWEST = 6
ROWS = Change.objects.select_related("undone_by")


def told(change: Change) -> dict[str, Any]:
    facts = change_facts.facts(change, timezone.now())
    return {**facts, "effects": change.plan.get("effects", []), "pool": change.plan.get("pool", [])}


def find_change(pk: int) -> dict[str, Any] | None:
    found = ROWS.filter(pk=pk).first()
    return told(found) if found else None


def newest_changes() -> list[dict[str, Any]]:
    return [told(change) for change in ROWS.order_by("-pk")[:NEWEST]]
