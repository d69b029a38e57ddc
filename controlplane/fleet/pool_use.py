"""What gateways have in flight of pooled deployments: written by each gateway of itself, read by who frees slots.

An engine that is told to go ends the requests it has, whatever is written here: a gateway that could not write costs
somebody a wait, never an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controlplane.fleet.models import GatewayBeat, PoolUse
from controlplane.fleet.verified import ALIVE_S

SILENT_S = 60.0  # what a gateway had in flight when it fell silent is believed for so long
KEEP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Use:
    """`in_flight` None: a gateway that had some is silent. `last_at`: None where nobody ever asked."""

    in_flight: int | None = 0
    last_at: datetime | None = None


def write(gateway: str, uses: Iterable[tuple[str, int, float]]) -> None:
    """(deployment, in flight, unix seconds of the last request's coming or end) of this gateway, as they are now."""
    rows = [
        PoolUse(gateway=gateway, deployment=name, in_flight=count, last_at=datetime.fromtimestamp(at, UTC))
        for name, count, at in uses
    ]
    PoolUse.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["gateway", "deployment"],
        update_fields=["in_flight", "last_at"],
    )


def begin(gateway: str) -> None:
    """A gateway of that name begins or ends: nothing is in flight there. When it was last asked stays known."""
    PoolUse.objects.filter(gateway=gateway).exclude(in_flight=0).update(in_flight=0)


def read(now: datetime) -> dict[str, Use] | None:
    """By deployment; None while no gateway is heard, for then nothing is known of any."""
    beats = dict(GatewayBeat.objects.values_list("name", "seen_at"))
    if not any(seen >= now - timedelta(seconds=ALIVE_S) for seen in beats.values()):
        return None
    found: dict[str, Use] = {}
    for gateway, name, count, at in PoolUse.objects.values_list("gateway", "deployment", "in_flight", "last_at"):
        before = found.get(name, Use())
        here = _believed(count, beats.get(gateway), now)
        total = None if here is None or before.in_flight is None else before.in_flight + here
        found[name] = Use(total, max(before.last_at, at) if before.last_at else at)
    return found


def prune(now: datetime) -> None:
    PoolUse.objects.filter(last_at__lt=now - KEEP, in_flight=0).delete()


def _believed(count: int, seen_at: datetime | None, now: datetime) -> int | None:
    """What to make of a count whose gateway was last heard then."""
    age = None if seen_at is None else (now - seen_at).total_seconds()
    if not count or (age is not None and age <= ALIVE_S):
        return count
    return None if age is not None and age <= SILENT_S else 0
