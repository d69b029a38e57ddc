"""What the fleet costs an hour as it stands, and whose the money of the last hour was. Unknown is None, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.db.models import Count, Sum

from controlplane.costs.models import UsageHour
from controlplane.costs.prices import prices_at
from controlplane.fleet.models import Gpu, Node

HOUR = timedelta(hours=1)
Share = UsageHour.Share


@dataclass(frozen=True, slots=True)
class Hourly:
    """`cost`: of all GPUs that nodes with a price report, in settings.CURRENCY; None: no node has one. `idle` and
    `reserved`: shares, 0 to 1, of what was paid since `since` and is counted; None: nothing is."""

    cost: Decimal | None
    nodes: int
    unpriced: int  # nodes without a price
    since: datetime
    idle: float | None
    reserved: float | None


def hourly(now: datetime) -> Hourly:
    """The shares are of the last whole hour and of the one that runs, as far as it is counted."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    prices = prices_at(hour)
    sizes = _sizes() if prices else {}
    known = [prices[name] * gpus for name, gpus in sizes.items() if name in prices]
    nodes = len(sizes) if prices else Node.objects.count()
    since = hour - HOUR
    paid = dict(
        UsageHour.objects.filter(hour__gte=since, hour__lte=now, cost__isnull=False)
        .order_by()
        .values_list("share")
        .annotate(paid=Sum("cost"))
    )
    total = sum(paid.values(), Decimal(0))
    idle, reserved = (float(paid.get(one, 0) / total) if total else None for one in (Share.IDLE, Share.RESERVED))
    return Hourly(sum(known, Decimal(0)) if known else None, nodes, nodes - len(known), since, idle, reserved)


def _sizes() -> dict[str, int]:
    """Each node's GPUs that are there, by its name."""
    counted = Gpu.objects.filter(present=True).order_by().values_list("node").annotate(Count("pk"))
    there = dict(counted)
    return {name: there.get(pk, 0) for pk, name in Node.objects.values_list("pk", "name")}
