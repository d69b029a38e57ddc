"""What usage came to: sums and a series by team, model, key, node or share of time. Unknown is None, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import F, FloatField, Min, Q, QuerySet, Sum
from django.db.models.functions import Cast, NullIf
from django.http import HttpRequest, StreamingHttpResponse

from controlplane.audit import export
from controlplane.costs.models import Counted, UsageHour
from controlplane.telemetry.reading import Epoch

BY = {"team": "team__name", "model": "deployment", "key": "key__name", "node": "node", "share": "share"}
HOUR_S, DAY_S = 3600, 86_400
MOST_SERIES = 6  # drawn by themselves; the others are drawn together
MOST_GROUPS = 2_000
COLUMNS = (
    "id", "hour", "node", "share", "deployment", "team", "key", "gpu_s", "cost", "currency", "requests",
    "prompt_tokens", "completion_tokens",
)  # fmt: skip
Share = UsageHour.Share
PRICED = Q(cost__isnull=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """`since` and `until` are taken to the hour."""

    by: str
    since: datetime
    until: datetime

    @property
    def step_s(self) -> int:
        return HOUR_S if self.until - self.since <= timedelta(days=4) else DAY_S

    @property
    def rows(self) -> QuerySet[UsageHour]:
        return UsageHour.objects.filter(hour__gte=_floor(self.since), hour__lt=self.until).order_by()


def report(asked: Asked, *, alone: int = MOST_SERIES) -> dict[str, Any]:
    """Money is in settings.CURRENCY. Groups are ordered by cost, then by GPU time; the group without a name is what is
    nobody's, of no deployment or without a key. `alone`: how many of the first have a series of their own."""
    groups = _groups(asked)
    counted = Counted.objects.first()
    return {
        "currency": settings.CURRENCY,
        "by": asked.by,
        "since": _floor(asked.since).timestamp(),
        "until": asked.until.timestamp(),
        "step_s": asked.step_s,
        "counted_at": counted.at.timestamp() if counted else None,
        "final_until": counted.upto.timestamp() if counted else None,
        "recorded_since": _first(),
        "total": _figures(list(asked.rows.values("share").annotate(**_SUMS))),
        "groups": groups[:MOST_GROUPS],
        "series": _series(asked, [group["name"] for group in groups[:alone]]),
    }


def download(request: HttpRequest, asked: Asked) -> StreamingHttpResponse:
    """The rows behind it as CSV: one an hour, node, share, deployment, team and key."""
    return export.stream(
        request,
        partial(_batch, asked),
        head=export.head_of(COLUMNS),
        to_text=export.csv_of,
        content_type=export.CSV,
        name=f"forebay-usage-{export.stamp()}.csv",
    )


_money = Cast(F("cost"), FloatField())
_SUMS: dict[str, Any] = {
    "time": Sum("gpu_s"),
    "paid": Sum("cost"),
    "unpriced": Sum("gpu_s", filter=~PRICED),
    "asked": Sum("requests"),
    "prompt": Sum("prompt_tokens"),
    "completion": Sum("completion_tokens"),
    "priced_tokens": Sum(F("prompt_tokens") + F("completion_tokens"), filter=PRICED),
    "paid_in": Sum(_money * F("in_gpu_s") / NullIf(F("gpu_s"), 0.0)),
    "paid_out": Sum(_money * F("out_gpu_s") / NullIf(F("gpu_s"), 0.0)),
    "priced_in": Sum("in_tokens", filter=PRICED),
    "priced_out": Sum("out_tokens", filter=PRICED),
}


def _groups(asked: Asked) -> list[dict[str, Any]]:
    column = BY[asked.by]
    found: dict[str | None, list[dict[str, Any]]] = {}
    for row in asked.rows.values(column, "share").annotate(**_SUMS):
        found.setdefault(row[column] or None, []).append(row)
    groups = [{"name": name, **_figures(rows)} for name, rows in found.items()]
    return sorted(groups, key=lambda one: (-(one["cost"] or 0.0), -sum(one["gpu_s"].values()), one["name"] or ""))


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a share, of one group or of all."""
    by_share = {row["share"]: row for row in rows}
    active = by_share.get(Share.ACTIVE)
    paid = [float(row["paid"]) for row in rows if row["paid"] is not None]
    costs = {share: by_share[share]["paid"] if share in by_share else 0 for share in Share.values}
    cost = sum(paid) if paid or not rows else None
    tokens = active["priced_tokens"] or 0 if active else 0
    return {
        "gpu_s": {share: by_share[share]["time"] if share in by_share else 0.0 for share in Share.values},
        "cost": cost,
        "costs": {share: None if one is None else float(one) for share, one in costs.items()},
        "unpriced_gpu_s": sum(row["unpriced"] or 0.0 for row in rows),
        "requests": active["asked"] if active else 0,
        "prompt_tokens": active["prompt"] if active else 0,
        "completion_tokens": active["completion"] if active else 0,
        "per_million": {
            "input": _per_million(active, "paid_in", "priced_in"),
            "output": _per_million(active, "paid_out", "priced_out"),
            "active": _ratio(costs[Share.ACTIVE], tokens),
            "all": _ratio(cost, tokens),
        },
    }


def _per_million(active: dict[str, Any] | None, paid: str, tokens: str) -> float | None:
    return _ratio(active[paid], active[tokens]) if active else None


def _ratio(paid: Any, tokens: int | None) -> float | None:
    """A million tokens' worth; None where nothing is known of either."""
    return float(paid) / tokens * 1e6 if paid is not None and tokens else None


def _series(asked: Asked, names: list[str | None]) -> list[dict[str, Any]]:
    """By step, for the largest groups; the last one, which has `others`, is all that is left."""
    column = BY[asked.by]
    alone: dict[str | None, dict[int, list[float | None]]] = {name: {} for name in names}
    rest: dict[int, list[float | None]] = {}
    for row in _steps(asked, column):
        into = alone.get(row[column] or None, rest)
        sums = into.setdefault(row["step"] * asked.step_s, [0.0, None])
        sums[0] = (sums[0] or 0.0) + row["time"]
        if row["paid"] is not None:
            sums[1] = (sums[1] or 0.0) + float(row["paid"])
    series = [{"name": name, "others": False, "points": _points(steps)} for name, steps in alone.items()]
    return [*series, {"name": None, "others": True, "points": _points(rest)}] if rest else series


def _steps(asked: Asked, column: str) -> QuerySet[Any, dict[str, Any]]:
    stepped = asked.rows.annotate(step=Epoch("hour") / asked.step_s)
    return stepped.values(column, "step").annotate(time=Sum("gpu_s"), paid=Sum("cost"))


def _points(steps: dict[int, list[float | None]]) -> list[list[float | None]]:
    """[unix seconds, GPU-seconds, money as far as it is known; None: no node had a price]"""
    return [[at, time, paid] for at, (time, paid) in sorted(steps.items())]


def _batch(asked: Asked, last: int | None) -> export.Rows:
    rows = asked.rows if last is None else asked.rows.filter(pk__gt=last)
    return [_row(one) for one in rows.select_related("team", "key").order_by("pk")[: export.BATCH]]


def _row(one: UsageHour) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(one, name, None) for name in COLUMNS}
    return facts | {
        "hour": one.hour.isoformat(),
        "team": one.team and one.team.name,
        "key": one.key and one.key.name,
        "gpu_s": round(one.gpu_s, 3),
        "currency": settings.CURRENCY,
    }


def _first() -> float | None:
    first = UsageHour.objects.aggregate(first=Min("hour"))["first"]
    return first.timestamp() if first else None


def _floor(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
