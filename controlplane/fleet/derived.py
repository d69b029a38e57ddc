"""What people and programs are told of a partition that is in no column: it follows from its row and the clock."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from controlplane.domain import health
from controlplane.domain.types import PartitionView
from controlplane.fleet import verified
from controlplane.fleet.models import Partition


def partition_words(row: Partition | Any, view: PartitionView, now: float) -> dict[str, Any]:
    """By the names that REST and the live view give them. `row`: of the ORM, or a named tuple of the same columns;
    `view`: of that row, with its node's `node_last_seen`; its GPUs are not looked at. `now`: unix seconds."""
    return {
        "role": row.role or None,
        "status": health.partition_status(view, now, settings.SILENT_AFTER_S).value,
        "phase": row.phase or None,
        "confirmed": health.is_confirmed(view),
        "verified": verified.is_verified(row),
        "verify_message": verified.message_of(row),
    }
