"""Where there is no GPU for what a dedicated deployment shall have: the pool is asked to lend it a slot meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from controlplane.domain.rollout import Lane
from controlplane.fleet import pool_use
from controlplane.fleet.models import Activation, Deployment
from controlplane.fleet.services import waking
from controlplane.teams import floors

UNUSED_FOR = timedelta(hours=1)  # a slot that nothing came to is not lent again by a plan for so long


def lend(short: Mapping[Lane, int], deployments: Iterable[Deployment], now: datetime) -> None:
    """`short`: engines that are lacking, for want of partitions and of empty slots. Only where the gateway can tell
    that engines are full: else nothing would be sent there."""
    asks = {}
    for row in deployments:
        lacking = {role: short[row.pk, role] for pk, role in short if pk == row.pk and short[row.pk, role]}
        if lacking and row.overflow and row.has_limit:
            told = " and ".join(f"{count} {role.value}" for role, count in lacking.items())
            many = "s" if sum(lacking.values()) > 1 else ""
            asks[row.name] = waking.Ask(0, why=f"its plan is short of {told} engine{many}")
    for name in _unused(asks, now) if asks else ():
        del asks[name]
    if asks:
        waking.wake(asks, now=now, floors=floors.read())


def _unused(names: Iterable[str], now: datetime) -> set[str]:
    """Those that had a slot lately and sent nothing there."""
    rows = Activation.objects.filter(
        cause=Activation.Cause.OVERFLOW, state=Activation.State.READY, deployment__name__in=list(names),
        ended_at__gt=now - UNUSED_FOR,
    )  # fmt: skip
    uses = pool_use.read(now) or {}
    found = {}
    for name, ended_at in rows.order_by("pk").values_list("deployment__name", "ended_at"):
        last_at = uses.get(name, pool_use.Use()).last_at
        found[name] = last_at is None or last_at < ended_at
    return {name for name, unused in found.items() if unused}
