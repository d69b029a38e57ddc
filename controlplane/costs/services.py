"""Say what nodes cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.costs.counting import note_spending
from controlplane.costs.models import NodePrice, UsageHour
from controlplane.costs.prices import cost_of
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid
from controlplane.fleet.models import Node

LARGEST = Decimal("99999999.9999")
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AT_ONCE = 500


@transaction.atomic
def set_price(
    *, nodes: Sequence[str], per_gpu_hour: Decimal | None, since: datetime | None = None, actor: Actor, reason: str = ""
) -> list[NodePrice]:
    """Each GPU of these nodes costs so much an hour from the hour on in which `since` lies (None: now) until the next
    price of the node; None: it is not known. Hours that are counted cost so much too, from then on."""
    now = timezone.now()
    wanted = list(dict.fromkeys(nodes))
    rows = {node.name: node for node in Node.objects.select_for_update().filter(name__in=wanted)}
    if problems := _problems(wanted, rows, per_gpu_hour, since, now):
        raise Invalid(problems)
    hour = (since or now).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    prices = [_set(rows[name], hour, per_gpu_hour, actor, reason) for name in wanted]
    note_spending(now)
    return prices


def _set(node: Node, since: datetime, per_gpu_hour: Decimal | None, actor: Actor, reason: str) -> NodePrice:
    before = NodePrice.objects.filter(node=node, since=since).first()
    price, _ = NodePrice.objects.update_or_create(node=node, since=since, defaults={"per_gpu_hour": per_gpu_hour})
    _cost_anew(price)
    record(
        actor, "set-price", node, before=_shown(before) if before else None, after=_shown(price), reason=reason,
        detail=f"{_words(per_gpu_hour)} since {since:%Y-%m-%d %H:%M} UTC.",
    )  # fmt: skip
    return price


def _cost_anew(price: NodePrice) -> None:
    """What is counted of the time that the price holds."""
    rows = UsageHour.objects.filter(node=price.node.name, hour__gte=price.since)
    following = NodePrice.objects.filter(node=price.node, since__gt=price.since).order_by("since").first()
    if following is not None:
        rows = rows.filter(hour__lt=following.since)
    changed = []
    for row in rows.only("pk", "gpu_s").iterator(AT_ONCE):
        row.cost = cost_of(row.gpu_s, price.per_gpu_hour)
        changed.append(row)
    UsageHour.objects.bulk_update(changed, ["cost"], batch_size=AT_ONCE)


def _problems(
    names: list[str],
    rows: dict[str, Node],
    per_gpu_hour: Decimal | None,
    since: datetime | None,
    now: datetime,
) -> list[Problem]:
    found = []
    if not names:
        found.append(Problem("nodes", "No node is named.", "Name those that cost so much."))
    if unknown := [name for name in names if name not in rows]:
        found.append(Problem("nodes", f"There is no node {', '.join(unknown)}.", "Use the names of nodes."))
    if per_gpu_hour is not None and not (per_gpu_hour.is_finite() and 0 <= per_gpu_hour <= LARGEST):
        fix = "0 is free; leave it out where it is not known."
        found.append(Problem("per_gpu_hour", "A price is 0 to 99,999,999.9999.", fix))
    if since is not None and not EARLIEST <= since <= now + timedelta(days=366):
        found.append(Problem("since", "A price holds from a time between 2000 and a year from now.", "Say when."))
    return found


def _shown(price: NodePrice) -> dict[str, str | None]:
    amount = price.per_gpu_hour
    return {"per_gpu_hour": None if amount is None else f"{amount:.4f}", "since": price.since.isoformat()}


def _words(per_gpu_hour: Decimal | None) -> str:
    return "Its price is not known" if per_gpu_hour is None else f"{per_gpu_hour:.4f} an hour of each GPU"
