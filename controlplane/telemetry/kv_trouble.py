"""KV that expired before it was pulled, and transfers that failed: an event on the partition, of one kind at most one a
minute, with how many there were."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.fleet.models import Partition

EVERY_S = 60.0
TOTALS = {"kv_expired_total": "kv-expired", "nixl_failures_total": "kv-transfer-failed"}
DETAIL = {
    "kv-expired": "Requests' KV expired before a decode engine pulled it; what is pulled later may answer wrongly.",
    "kv-transfer-failed": "KV transfers or their notifications failed; the engine's log says why.",
}

Key = tuple[int, int, str]  # node, partition, verb


def tell(counted: Mapping[Key, float]) -> dict[Key, float]:
    """Record what is due; what is left for later, since the last event of its kind is too young."""
    left = {}
    for (node, pk, verb), count in counted.items():
        if _is_too_soon(pk, verb):
            left[node, pk, verb] = count
        elif partition := Partition.objects.select_related("node").filter(pk=pk, node=node).first():
            with transaction.atomic():
                record(Actor.agent(partition.node.name), verb, partition, after={"count": count}, detail=DETAIL[verb])
    return left


def _is_too_soon(partition: int, verb: str) -> bool:
    since = timezone.now() - timedelta(seconds=EVERY_S)
    of_it = AuditEvent.objects.filter(subject_type="partition", subject_id=partition, verb=verb, at__gt=since)
    return of_it.exists()
