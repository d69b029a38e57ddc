"""Whether gateways live, and what their own requests through each engine came to. The only writer of these facts.

An engine that says it is ready may still not answer through the path that clients take: a gateway asks it before it
sends clients there, and says here how that went."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from django.db.models import Case, F, Value, When
from django.utils import timezone

from controlplane.fleet.models import GatewayBeat, Partition

ALIVE_S = 5.0
FAILURES = 3  # in a row: gateways try again, but whoever waits for the engine need not
KEEP_BEATS = timedelta(days=1)
MESSAGE = 256


class Verification(StrEnum):
    """Of a partition at its present generation; derived, never stored."""

    VERIFIED = "verified"
    PENDING = "pending"
    FAILED = "failed"
    NO_GATEWAY = "no-gateway"  # nobody is there to ask it


def record(partition_id: int, generation: int, ok: bool, message: str = "", *, now: datetime | None = None) -> bool:
    """Note that the engine of that generation answered (`ok`), or why it did not. False: the partition has moved on,
    or is gone, and nothing was written. Several gateways may tell of the same engine; one answer verifies it."""
    mine = Partition.objects.filter(pk=partition_id, generation=generation)
    if ok:
        return bool(
            mine.update(
                verified_generation=generation, verified_at=now or timezone.now(), verify_message="", verify_failures=0
            )
        )
    again = Case(When(failed_generation=generation, then=F("verify_failures") + 1), default=Value(1))
    text = message.replace("\x00", "")[:MESSAGE]
    return bool(mine.update(verify_failures=again, failed_generation=generation, verify_message=text))


def state(partition: Partition, now: datetime | None = None) -> Verification:
    """Whether requests may count on the engine that the partition should have now."""
    known = stands(partition)
    if known is not Verification.PENDING or gateway_alive(now or timezone.now()):
        return known
    return Verification.NO_GATEWAY


def stands(partition: Partition) -> Verification:
    """As `state`, by the row alone: for many rows, when it is known that a gateway lives. A partition with nothing
    assigned has nothing left to verify."""
    if partition.deployment_id is None or is_verified(partition):
        return Verification.VERIFIED
    failed = partition.failed_generation == partition.generation and partition.verify_failures >= FAILURES
    return Verification.FAILED if failed else Verification.PENDING


def is_verified(partition: Partition) -> bool:
    """A gateway's request was answered by the engine that should be there now. One that restarted by itself since is
    asked again by each gateway, but has nothing new to confirm."""
    return partition.deployment_id is not None and 0 < partition.generation <= partition.verified_generation


def message_of(partition: Partition) -> str:
    """Why the last request of a gateway through this engine failed; "" where that was another generation's."""
    return partition.verify_message if partition.failed_generation == partition.generation else ""


def beat(name: str, address: str, now: datetime) -> None:
    """The gateway lives."""
    if not GatewayBeat.objects.filter(name=name).update(seen_at=now, address=address):
        GatewayBeat.objects.update_or_create(name=name, defaults={"seen_at": now, "address": address})


def ended(name: str) -> None:
    """The gateway ends; nobody needs to wait until its silence says so."""
    GatewayBeat.objects.filter(name=name).delete()


def gateway_alive(now: datetime) -> bool:
    """Whether any gateway was heard in the last seconds."""
    return GatewayBeat.objects.filter(seen_at__gte=now - timedelta(seconds=ALIVE_S)).exists()


def forget_gateways(now: datetime) -> None:
    """Forget gateways that have been silent for a day."""
    GatewayBeat.objects.filter(seen_at__lt=now - KEEP_BEATS).delete()
