"""Writes the history: bursts that are imported, and gateways' minutes once they are days old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.problems import DomainError, Problem
from controlplane.gateway.models import DemandMinute
from controlplane.planning.history import LEAST_OUTAGE_S, MINUTE_S
from controlplane.planning.models import ActivityDay, Forecast, RecordedSpan
from controlplane.planning.packing import Packed, pack

RAW_DAYS = 3  # gateways' minutes stay rows for so long: several add to the same one
AT_ONCE = 500  # days of models a statement
NAME = 120  # characters
MOST_AHEAD_S = 3600.0  # an import may not reach further into the future
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Imported:
    """`replaced`: days of models that were there from an import before."""

    models: int
    requests: int
    days: int
    replaced: int
    start: float
    end: float


@transaction.atomic
def save_import(
    requests: Requests,
    *,
    actor: Actor,
    now: float,
    reason: str = "",
    spans: Sequence[tuple[float, float]] = (),
) -> Imported:
    """Keep these bursts; a model's day that was imported before is replaced, so that the same file twice is once.
    `spans`: of which it is on record what was asked; by default from the first request to the last.
    Raises DomainError, and keeps nothing."""
    check(requests, now)
    days = list(_days(requests))
    start, end = float(requests.at.min()), float(max(requests.at.max(), requests.until.max()))
    names, dates = {row.model for row in days}, {row.day for row in days}
    before = ActivityDay.objects.filter(source=ActivityDay.Source.IMPORT, day__gte=min(dates), day__lte=max(dates))
    there = {(name, day) for name, day in before.values_list("model", "day")} & {(row.model, row.day) for row in days}
    ActivityDay.objects.bulk_create(
        days, AT_ONCE, update_conflicts=True, unique_fields=["day", "model", "source"],
        update_fields=["bursts", "requests"],
    )  # fmt: skip
    for begin, until in spans or [(start, end)]:
        source = ActivityDay.Source.IMPORT
        span = RecordedSpan.objects.create(start=_moment(begin), end=_moment(until), source=source)
    made = Imported(len(names), int(requests.number.sum()), len(days), len(there), start, end)
    after = {"models": made.models, "requests": made.requests, "replaced": made.replaced}
    record(actor, "import-activity", span, after=after, reason=reason)
    return made


@transaction.atomic
def pack_minutes(now: float) -> int:
    """One day of gateways' minutes that is old enough, the oldest; how many rows it was. A day is packed once it is
    over for longer than anything adds to it."""
    oldest = DemandMinute.objects.order_by("minute").values_list("minute", flat=True).first()
    if oldest is None or oldest.timestamp() > now - RAW_DAYS * DAY_S:
        return 0
    midnight = datetime(oldest.year, oldest.month, oldest.day, tzinfo=UTC)
    minutes = DemandMinute.objects.filter(minute__gte=midnight, minute__lt=midnight + timedelta(days=1))
    by_model: dict[str, list[tuple[float, int, int, int]]] = {}
    for name, minute, *figures in minutes.order_by("minute").values_list(
        "deployment", "minute", "arrivals", "prompt_tokens", "completion_tokens"
    ):
        by_model.setdefault(name, []).append(((minute - midnight).total_seconds(), *figures))
    rows = [_of_minutes(name, midnight.date(), found) for name, found in by_model.items()]
    ActivityDay.objects.bulk_create(
        rows, AT_ONCE, update_conflicts=True, unique_fields=["day", "model", "source"],
        update_fields=["bursts", "requests"],
    )  # fmt: skip
    return minutes.delete()[0]


def note_recorded(now: float) -> None:
    """What was asked until now is on record. The newest span is made longer, unless nothing was for a while."""
    last = RecordedSpan.objects.filter(source=ActivityDay.Source.GATEWAY).order_by("-end").first()
    if last is not None and now - last.end.timestamp() <= LEAST_OUTAGE_S:
        RecordedSpan.objects.filter(pk=last.pk, end__lt=_moment(now)).update(end=_moment(now))
        return
    RecordedSpan.objects.create(start=_moment(now), end=_moment(now), source=ActivityDay.Source.GATEWAY)


def prune(now: float) -> None:
    oldest = _moment(now - settings.ACTIVITY_KEEP_DAYS * DAY_S)
    ActivityDay.objects.filter(day__lt=oldest.date()).delete()
    RecordedSpan.objects.filter(end__lt=oldest).delete()
    Forecast.objects.filter(at__lt=_moment(now - settings.FORECAST_KEEP_DAYS * DAY_S)).delete()


def check(requests: Requests, now: float) -> None:
    """Raises DomainError where they are none, lie in no time there was, or have no names."""
    if not len(requests.at):
        raise _refused("no-requests", "There are no requests in it.", "Give a file with at least one.")
    if requests.at.min() < EARLIEST or max(requests.at.max(), requests.until.max()) > now + MOST_AHEAD_S:
        fix = "Give unix seconds, or move the trace so that it ends now (--shift-to now)."
        raise _refused("times-out-of-range", "Its times are not between the year 2000 and now.", fix)
    bad = [name for name in requests.models if not name or len(name) > NAME or "\0" in name or not _is_text(name)]
    if bad:
        message = f"{len(bad)} names of models are empty, longer than {NAME} characters or no text, as {bad[0][:40]!r}."
        raise _refused("bad-model-names", message, "Use the names by which clients ask for them.")


def _refused(code: str, message: str, fix: str) -> DomainError:
    return DomainError(Problem(code, f"{message} Nothing was imported.", fix))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _days(requests: Requests) -> Iterator[ActivityDay]:
    day = np.floor(requests.at / DAY_S).astype(np.int64)
    order = np.lexsort((requests.at, day, requests.model))
    model, day = requests.model[order], day[order]
    begins = np.flatnonzero(np.append(True, (model[1:] != model[:-1]) | (day[1:] != day[:-1])))
    for first, last in zip(begins, np.append(begins[1:], len(order)), strict=True):
        part, midnight = order[first:last], float(day[first]) * DAY_S
        at, until, number = requests.at[part] - midnight, requests.until[part] - midnight, requests.number[part]
        tokens = np.zeros((len(part), 2), np.int64) if requests.tokens is None else requests.tokens[part]
        packed = Packed(at, until, number, tokens[:, 0], tokens[:, 1])
        yield _day(requests.models[model[first]], _moment(midnight).date(), packed)


def _day(name: str, day: date, found: Packed) -> ActivityDay:
    bursts, number = pack(found), found.number
    return ActivityDay(model=name, day=day, source=ActivityDay.Source.IMPORT, bursts=bursts, requests=int(number.sum()))


def _of_minutes(name: str, day: date, found: list[tuple[float, int, int, int]]) -> ActivityDay:
    at, number, prompt, completion = (np.array(column) for column in zip(*found, strict=True))
    at = at.astype(np.float64)
    packed = Packed(at, at + MINUTE_S, *(one.astype(np.int64) for one in (number, prompt, completion)))
    return ActivityDay(
        model=name, day=day, source=ActivityDay.Source.GATEWAY, bursts=pack(packed), requests=int(number.sum())
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
