"""The load at present, for previews of changes: what engines say of themselves, what the gateway's records say."""

from __future__ import annotations

import time

from django.conf import settings

from controlplane.domain.impact import Live, Load, Served
from controlplane.fleet.models import Deployment, Node
from controlplane.gateway import summary
from controlplane.telemetry import latest, valkey


def live() -> Live:
    """Never fails for want of figures: what nobody tells now is None. Requests on an engine by partition; requests a
    second and milliseconds of the last minute by deployment."""
    return Live(partitions=_partitions(), deployments=_deployments())


def _partitions() -> dict[int, Load]:
    """A silent node's last figures tell nothing of now."""
    since = time.time() - settings.SILENT_AFTER_S
    try:
        heard = latest.read(Node.objects.values_list("pk", flat=True)).values()
    except valkey.Unreachable:
        return {}
    return {
        partition: Load(running=figures.running, waiting=figures.waiting)
        for node in heard
        if node.seen >= since
        for partition, figures in node.engines.items()
    }


def _deployments() -> dict[int, Served]:
    """A deployment that no request ended of has no latency, and its rate is zero as far as records go."""
    found = summary.by_deployment()
    return {
        pk: Served(rps=said.rps, ttft_p95_ms=said.ttft_p95_ms, itl_p95_ms=said.itl_p95_ms)
        if (said := found.get(name))
        else Served(rps=0.0)
        for pk, name in Deployment.objects.values_list("pk", "name")
    }
