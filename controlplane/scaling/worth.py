"""What it costs to serve a deployment from a partition: its node's price over how many requests its kind of engine
serves, by a profile or a roofline. Known where nodes have prices, the engine's speed is known, the deployment has
objectives, and requests of it are on record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from controlplane.costs.prices import gpu_hours_at
from controlplane.domain import sizing
from controlplane.domain.allotment import Worth
from controlplane.domain.rollout import Lane
from controlplane.domain.sizing import Demand, Slo
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Deployment, Partition
from controlplane.planning import sizes
from controlplane.planning.offers import offers
from controlplane.scaling.floors import HOURS, SHARE

Kind = tuple[str, int]  # GPU, GPUs of an engine


def worths(
    deployment: Deployment, lanes: Sequence[Lane], rows: Sequence[Partition], now: datetime
) -> dict[tuple[int, Lane], Worth]:
    """By partition and lane, all of the deployment; those that are not known are left out."""
    prices = gpu_hours_at(now)
    kinds = {row.pk: kind for row in rows if row.node.name in prices and (kind := _kind(row)) is not None}
    choice = {(kinds[row.pk], prices[row.node.name]) for row in rows if row.pk in kinds}
    if len(choice) < 2 or not deployment.slo_ttft_ms or not deployment.slo_itl_ms:
        return {}
    try:
        demand = Demand.of(sizes.recorded(deployment, HOURS))
    except FleetError:
        return {}
    slo = Slo(float(deployment.slo_ttft_ms), float(deployment.slo_itl_ms), SHARE)
    speeds = {(one.offer.gpu, one.offer.tp): one.offer.speed for one in offers(deployment, prices)[0]}
    rates = {
        (kind, lane): sizing.served_per_s(speeds[kind], lane[1], demand, slo)
        for kind in set(kinds.values()) & speeds.keys()
        for lane in lanes
    }
    return {
        (row.pk, lane): _worth(kind, prices[row.node.name], rates[kind, lane])
        for row in rows
        for lane in lanes
        if (kind := kinds.get(row.pk)) in speeds and kind is not None
    }


def _worth(kind: Kind, gpu_hour: float, rate_per_s: float) -> Worth:
    gpu, tp = kind
    per_1000 = 1000.0 * gpu_hour * tp / (3600.0 * rate_per_s) if rate_per_s else math.inf
    return Worth(per_1000, f"{tp} x {gpu} at {gpu_hour:g} a GPU-hour")


def _kind(row: Partition) -> Kind | None:
    """None where its GPUs are not alike."""
    names = Counter(gpu.name for gpu in row.gpus.all())
    return next(iter(names.items())) if len(names) == 1 else None
