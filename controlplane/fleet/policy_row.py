"""A policy is one row that people change, each change a version and an event: what all policies have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from django.db import models, transaction

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.fleet.errors import Conflict

Row = TypeVar("Row", bound=models.Model)


def shown(row: models.Model, fields: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


@transaction.atomic
def change(
    fresh: Row,
    values: Mapping[str, Any],
    *,
    put: Callable[[Row, Mapping[str, Any]], None],
    fields: Sequence[str],
    actor: Actor,
    reason: str,
    expected_version: int | None,
) -> Row:
    """`fresh`: the row as it is until somebody changes it, with its key. `put` sets `values` or raises Invalid.
    `expected_version`: as the caller saw it; raises Conflict where somebody was faster."""
    kind = type(fresh)
    kind.objects.bulk_create([fresh], ignore_conflicts=True)
    row = kind.objects.select_for_update().get(pk=fresh.pk)
    if expected_version is not None and expected_version != row.version:
        raise Conflict(*_faster(row))
    before = shown(row, fields)
    put(row, values)
    after = shown(row, fields)
    if after != before:
        row.version += 1
        row.save(update_fields=[*fields, "version"])
        record(actor, "change", row, before=before, after=after, reason=reason)
    return row


def _faster(row: Any) -> tuple[str, str]:
    last = AuditEvent.objects.filter(subject_type=row._meta.model_name, subject_id=row.pk).order_by("-at").first()
    who = f"{last.actor_name} changed it at {last.at:%Y-%m-%d %H:%M:%S} UTC" if last else "Somebody changed it"
    return f"{who}: it is at version {row.version} now. Nothing was changed.", "Look at it as it is now, and try again."
