"""What a GPU's hour on a node costs at a time."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from controlplane.costs.models import NodePrice

MICRO = Decimal("0.000001")


def prices_at(hour: datetime) -> dict[str, Decimal]:
    """By node, in the hour that begins then; nodes whose price is not known are left out."""
    rows = NodePrice.objects.filter(since__lte=hour).order_by("since")
    newest = dict(rows.values_list("node__name", "per_gpu_hour"))
    return {node: price for node, price in newest.items() if price is not None}


def cost_of(gpu_s: float, per_gpu_hour: Decimal | None) -> Decimal | None:
    if per_gpu_hour is None:
        return None
    return (Decimal(gpu_s) * per_gpu_hour / 3600).quantize(MICRO)
