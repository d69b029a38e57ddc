"""Writes whose the GPUs' time was, hour by hour. An hour is written anew as a whole until it is final, so that counting
twice, late or after an outage comes to the same."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import Min, Q, Sum

from controlplane.costs.gathering import HOUR, Hour, gather, remember_engines
from controlplane.costs.models import Counted, UsageHour
from controlplane.costs.prices import cost_of, prices_at
from controlplane.domain.usage import split
from controlplane.fleet.models import Node
from controlplane.gateway.models import ApiKey
from controlplane.teams.models import DeploymentTeam, Team, TeamSpend
from controlplane.telemetry.rollup import made_upto
from controlplane.telemetry.spans import MINUTE

SETTLE = timedelta(minutes=10)  # after an hour: requests of it may still run; what is told of them later is not counted
GIVE_UP = timedelta(hours=6)  # then an hour is final though samples of it were never added up
WORK_S = 5.0  # then the next run goes on
Share = UsageHour.Share


def count(now: datetime, *, work_s: float = WORK_S) -> None:
    """Count what can be counted by `now`, the oldest hours first."""
    until = time.monotonic() + work_s
    remember_engines()
    for hour in _due(now):
        _write(hour, _rows(hour), now)
        if time.monotonic() > until:
            break
    note_spending(now)


@transaction.atomic
def note_spending(now: datetime) -> None:
    """What each team's month has come to. Rows change only where the figures do: gateways re-read their table then."""
    month = date(now.year, now.month, 1)
    since = datetime(now.year, now.month, 1, tzinfo=UTC)
    found = {
        team: (cost or Decimal(0), unpriced or 0.0)
        for team, cost, unpriced in UsageHour.objects.filter(team__isnull=False, hour__gte=since)
        .order_by()
        .values_list("team")
        .annotate(paid=Sum("cost"), unpriced=Sum("gpu_s", filter=Q(cost=None)))
    }
    there = {row.team_id: row for row in TeamSpend.objects.select_for_update()}
    for team in Team.objects.order_by().values_list("pk", flat=True):
        spent, unpriced = found.get(team, (Decimal(0), 0.0))
        row = there.get(team)
        if row is None or (row.month, row.spent, row.unpriced_gpu_s) != (month, spent, unpriced):
            figures = {"month": month, "spent": spent, "unpriced_gpu_s": unpriced}
            TeamSpend.objects.update_or_create(team_id=team, defaults=figures)


def prune(now: datetime) -> None:
    UsageHour.objects.filter(hour__lt=now - timedelta(days=settings.USAGE_KEEP_DAYS)).delete()


def _due(now: datetime) -> Iterator[datetime]:
    """Hours that are not final, up to the one that runs. What is older than the sources are kept is left out."""
    kept = timedelta(days=min(settings.SAMPLE_MINUTE_KEEP_DAYS, settings.RECORD_KEEP_DAYS) - 1)
    counted = Counted.objects.first()
    begin = counted.upto if counted else Node.objects.aggregate(first=Min("created_at"))["first"]
    if begin is None:
        return
    hour = _floor(max(begin, now - kept))
    while hour <= now:
        yield hour
        hour += HOUR


@transaction.atomic
def _write(hour: datetime, rows: list[UsageHour], now: datetime) -> None:
    """The rows are made before: other writers wait for this transaction."""
    Counted.objects.get_or_create(pk=1, defaults={"upto": hour, "at": now})
    row = Counted.objects.select_for_update().get(pk=1)  # two counters at once take turns
    if hour < row.upto:
        return
    UsageHour.objects.filter(hour=hour).delete()
    UsageHour.objects.bulk_create(rows, batch_size=500)
    row.at = now
    if _is_final(hour, now):
        row.upto = hour + HOUR
    row.save(update_fields=["upto", "at"])


def _is_final(hour: datetime, now: datetime) -> bool:
    end = hour + HOUR
    made = made_upto(MINUTE)
    told = made is not None and made >= end.timestamp()
    return now >= end + (SETTLE if told else GIVE_UP)


@dataclass(slots=True)
class _Sums:
    gpu_s: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_gpu_s: float = 0.0
    out_gpu_s: float = 0.0
    in_tokens: int = 0
    out_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Whose:
    node: str
    share: Share
    deployment: str = ""
    team: int | None = None
    key: int | None = None


def _rows(hour: datetime) -> list[UsageHour]:
    prices = prices_at(hour)
    return [
        UsageHour(
            hour=hour, node=whose.node, share=whose.share, deployment=whose.deployment, team_id=whose.team,
            key_id=whose.key, cost=cost_of(sums.gpu_s, prices.get(whose.node)),
            **{name: getattr(sums, name) for name in sums.__slots__},
        )
        for whose, sums in _sums(gather(hour)).items()
    ]  # fmt: skip


def _sums(found: Hour) -> dict[_Whose, _Sums]:
    sums: defaultdict[_Whose, _Sums] = defaultdict(_Sums)
    shared = split(found.arrays(), found.ups)
    _active(found, shared.active.tolist(), sums)
    _reserved(found, shared.reserved.tolist(), sums)
    engines: dict[str, float] = {}
    for engine, up_s, gpus in zip(found.ups.engine, found.ups.up_s, found.ups.gpus, strict=True):
        node = _node(found.engines[engine])
        engines[node] = engines.get(node, 0.0) + float(up_s * gpus)
    for node, gpu_s in found.gpu_s.items():
        if (idle := gpu_s - engines.get(node, 0.0)) > 0:
            sums[_Whose(node, Share.IDLE)].gpu_s += idle
    return sums


def _active(found: Hour, shares: list[float], sums: defaultdict[_Whose, _Sums]) -> None:
    teams = dict(ApiKey.objects.order_by().values_list("pk", "team"))
    for stay, gpu_s in zip(found.stays, shares, strict=True):
        key = stay.key if stay.key in teams else None
        one = sums[_Whose(_node(stay.engine), Share.ACTIVE, stay.deployment, teams.get(key), key)]
        one.gpu_s += gpu_s
        one.requests += stay.requests
        one.prompt_tokens += stay.prompt
        one.completion_tokens += stay.completion
        if stay.before is not None and gpu_s > 0:
            one.in_gpu_s += gpu_s * stay.before
            one.out_gpu_s += gpu_s * (1.0 - stay.before)
            one.in_tokens += stay.prompt
            one.out_tokens += stay.completion


def _reserved(found: Hour, shares: list[float], sums: defaultdict[_Whose, _Sums]) -> None:
    teams = dict(DeploymentTeam.objects.order_by().values_list("deployment__name", "team"))
    for engine, deployment, gpu_s in zip(found.ups.engine, found.up_deployments, shares, strict=True):
        if gpu_s > 0:
            whose = _Whose(_node(found.engines[engine]), Share.RESERVED, deployment, teams.get(deployment))
            sums[whose].gpu_s += gpu_s


def _node(engine: str) -> str:
    return engine.partition("/")[0]


def _floor(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
