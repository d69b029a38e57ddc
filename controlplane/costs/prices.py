"""What a GPU's hour on a node costs at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Count, Q

from controlplane.costs.models import NodePrice
from controlplane.fleet.models import Node

MICRO = Decimal("0.000001")


def prices_at(hour: datetime) -> dict[str, Decimal]:
    """By node, in the hour that begins then; nodes whose price is not known are left out."""
    rows = NodePrice.objects.filter(since__lte=hour).order_by("since")
    newest = dict(rows.values_list("node__name", "per_gpu_hour"))
    return {node: price for node, price in newest.items() if price is not None}


def gpu_hours_at(now: datetime) -> dict[str, float]:
    """The price of a GPU's hour by node in the hour of `now`, those that are known."""
    return {node: float(price) for node, price in prices_at(now.replace(minute=0, second=0, microsecond=0)).items()}


def cost_of(gpu_s: float, per_gpu_hour: Decimal | None) -> Decimal | None:
    if per_gpu_hour is None:
        return None
    return (Decimal(gpu_s) * per_gpu_hour / 3600).quantize(MICRO)


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What a node costs now; None: it is not known. `gpus`: those that it reports."""

    node: Node
    gpus: int
    per_gpu_hour: Decimal | None
    since: datetime | None
    next: NodePrice | None  # that is to hold later

    @property
    def per_node_hour(self) -> Decimal | None:
        return None if self.per_gpu_hour is None else self.per_gpu_hour * self.gpus


def node_costs(now: datetime) -> list[NodeCost]:
    """Of all nodes, by name."""
    held: dict[int, NodePrice] = {}
    coming: dict[int, NodePrice] = {}
    for price in NodePrice.objects.order_by("since"):
        if price.since <= now:
            held[price.node_id] = price
        else:
            coming.setdefault(price.node_id, price)
    nodes = Node.objects.annotate(size=Count("gpus", filter=Q(gpus__present=True))).order_by("name")
    found = []
    for node in nodes:
        price = held.get(node.pk)
        amount = price.per_gpu_hour if price else None
        found.append(NodeCost(node, node.size, amount, price.since if price else None, coming.get(node.pk)))
    return found
