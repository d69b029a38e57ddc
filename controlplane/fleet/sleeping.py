"""Which engines sleep where, by what agents say: the only writer of those columns of Sleeper and Node that say so."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from controlplane.fleet import observed
from controlplane.fleet.models import Deployment, Node, Sleeper
from workers.contract import NodeReport
from workers.sleep import SleeperStatus

_COLUMNS = ("asleep_since", "level", "host_bytes", "gpu_bytes")
_AWAKE: dict[str, Any] = {"asleep_since": None, "level": 0, "host_bytes": 0, "gpu_bytes": 0}


def take(node: Node, report: NodeReport, now: datetime) -> None:
    """With the node locked. An engine that is being stopped does not sleep any more."""
    said = report.sleep
    if said is None:
        return
    told = {(one.partition, one.deployment): one for one in said.sleepers if not one.leaving}
    changed = []
    for row in Sleeper.objects.filter(partition__node=node).select_related("deployment"):
        one = told.get((row.partition_id, observed.clean(row.deployment.name, 120)))
        values = _AWAKE if one is None else _values(row, one, now)
        if any(getattr(row, column) != value for column, value in values.items()):
            for column, value in values.items():
                setattr(row, column, value)
            changed.append(row)
    Sleeper.objects.bulk_update(changed, _COLUMNS)
    columns = {
        "sleep_why_not": observed.clean(said.why_not, 256),
        "sleep_cap_bytes": observed.whole(said.cap_bytes, observed.LARGEST_BIG),
        "sleep_held_bytes": observed.whole(said.held_bytes, observed.LARGEST_BIG),
    }
    if any(getattr(node, column) != value for column, value in columns.items()):
        for column, value in columns.items():
            setattr(node, column, value)
        node.save(update_fields=list(columns))


def news(report: NodeReport) -> tuple[Any, ...] | None:
    """What must reach the database at once; bytes may lag."""
    said = report.sleep
    if said is None:
        return None
    return said.why_not, said.cap_bytes, [(s.partition, s.deployment, s.level, s.pid, s.leaving) for s in said.sleepers]


def held(report: NodeReport) -> int:
    """In steps of 256 MiB: what processes measure moves all the time."""
    return report.sleep.held_bytes >> 28 if report.sleep else 0


def beds(deployment: Deployment) -> frozenset[int]:
    """Partitions in which its engine sleeps."""
    if not settings.POOL_SLEEPERS:
        return frozenset()
    rows = Sleeper.objects.filter(deployment=deployment, asleep_since__isnull=False)
    return frozenset(rows.order_by().values_list("partition_id", flat=True))


def why_not(node: Node) -> str:
    """Why no engine is put to sleep on it, "" where it may be."""
    if not settings.POOL_SLEEPERS:
        return "it is switched off (FOREBAY_POOL_SLEEPERS is 0)"
    if node.sleep_cap_bytes is None:
        return "its agent has not said that it can"
    return node.sleep_why_not or ("" if node.sleep_cap_bytes else "no host memory is set aside for it")


def names() -> set[str]:
    """Of deployments whose engine sleeps somewhere."""
    if not settings.POOL_SLEEPERS:
        return set()
    rows = Sleeper.objects.filter(asleep_since__isnull=False).order_by()
    return set(rows.values_list("deployment__name", flat=True))


def _values(row: Sleeper, one: SleeperStatus, now: datetime) -> dict[str, Any]:
    """Since when is told in seconds before now, and now is not the same each time: the first word counts."""
    since = row.asleep_since
    if since is None:
        since = now - timedelta(seconds=min(max(one.asleep_s, 0.0), 10 * 365 * 86400.0))
    return {
        "asleep_since": since,
        "level": one.level,
        "host_bytes": observed.whole(one.host_bytes, observed.LARGEST_BIG),
        "gpu_bytes": observed.whole(one.gpu_bytes, observed.LARGEST_BIG),
    }
