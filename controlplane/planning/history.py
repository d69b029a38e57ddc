"""What was asked of each model in the past, whoever recorded it: what forecasts are made from.

Gateways count by the minute (gateway.demand): a minute with a request is taken to be busy from its first second to its
last, at most a minute more than was so. Imports are as exact as their source. A model is a deployment by its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import structlog
from django.db.models import Min

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import Outage
from controlplane.gateway.models import DemandMinute
from controlplane.planning.models import ActivityDay, RecordedSpan
from controlplane.planning.packing import Damaged, Packed, unpack

log = structlog.get_logger(__name__)
MINUTE_S = 60.0
LEAST_OUTAGE_S = 180.0  # a shorter one is a restart, and no model falls asleep meanwhile


def requests(since: float, until: float, *, model: str | None = None, tokens: bool = False) -> Requests:
    """Those that began in [since, until), unix seconds, of all models by name, or of one. `tokens`: with theirs, which
    forecasts of who is active have no use for."""
    found = [*_packed(since, until, model), *_minutes(since, until, model)]
    names = sorted({name for name, _ in found})
    places = {name: place for place, name in enumerate(names)}
    if not found:
        empty = np.empty(0)
        return Requests.of((), np.empty(0, np.int64), empty, empty, np.empty(0, np.int64))
    parts = [part for _, part in found]
    whole = Requests.of(
        tuple(names),
        np.concatenate([np.full(len(part.at), places[name], np.int64) for name, part in found]),
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.until for part in parts]),
        np.concatenate([part.number for part in parts]),
        tokens=np.concatenate([np.stack([part.prompt, part.completion], -1) for part in parts]) if tokens else None,
    )
    return whole.within(since, until)


@dataclass(slots=True)
class Reading:
    """What is on record before `until`, read once for all who look at it in one round, however far back each does: as
    far as the first, and again only for one who looks further."""

    until: float
    _since: float = math.inf
    _found: Requests | None = None

    def requests(self, since: float) -> Requests:
        """Those that began in [since, until), of the models that were asked for then."""
        if self._found is None or since < self._since:
            self._found, self._since = requests(since, self.until), since
        return self._found.within(since, self.until).asked()


def bursts(since: float, until: float, model: str) -> tuple[list[Packed], list[Packed]]:
    """Of one model, as gateways counted them and as they were imported. Gateways count a request in the minute in which
    it begins and its tokens in that in which it ends: a minute may have either without the other."""
    counted = [*_packed(since, until, model, ActivityDay.Source.GATEWAY), *_minutes(since, until, model)]
    imported = _packed(since, until, model, ActivityDay.Source.IMPORT)
    return [part for _, part in counted], [part for _, part in imported]


def first() -> float | None:
    """Since when anything is on record, unix seconds."""
    found = RecordedSpan.objects.aggregate(first=Min("start"))["first"]
    return None if found is None else float(found.timestamp())


def recorded(since: float, until: float) -> list[tuple[float, float]]:
    """The times within of which something is on record, in order and without overlap."""
    rows = RecordedSpan.objects.filter(end__gt=_moment(since), start__lt=_moment(until)).values_list("start", "end")
    spans = sorted((max(since, start.timestamp()), min(until, end.timestamp())) for start, end in rows)
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] + LEAST_OUTAGE_S:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def outages(since: float, until: float) -> tuple[Outage, ...]:
    """The times within of which nothing is on record, though something was before."""
    begin = first()
    if begin is None or begin >= until:
        return ()
    gaps, known_to = [], max(since, begin)
    for start, end in recorded(known_to, until):
        if start - known_to > LEAST_OUTAGE_S:
            gaps.append(Outage(known_to, start))
        known_to = end
    if until - known_to > LEAST_OUTAGE_S:
        gaps.append(Outage(known_to, math.inf))  # it is not over
    return tuple(gaps)


def _packed(since: float, until: float, only: str | None, source: str | None = None) -> list[tuple[str, Packed]]:
    """Times in unix seconds."""
    days = ActivityDay.objects.filter(day__gte=_moment(since).date(), day__lte=_moment(until).date())
    if only is not None:
        days = days.filter(model=only)
    if source is not None:
        days = days.filter(source=source)
    found = []
    for name, day, bursts in days.order_by("day").values_list("model", "day", "bursts").iterator(2000):
        try:
            one = unpack(bytes(bursts))
        except Damaged as error:
            log.error("a day of activity cannot be read; it is left out", model=name, day=str(day), why=str(error))
            continue
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        found.append((name, replace(one, at=one.at + midnight, until=one.until + midnight)))
    return found


def _minutes(since: float, until: float, only: str | None) -> list[tuple[str, Packed]]:
    rows = DemandMinute.objects.filter(minute__gte=_moment(since - MINUTE_S), minute__lt=_moment(until))
    if only is not None:
        rows = rows.filter(deployment=only)
    columns = ("deployment", "minute", "arrivals", "prompt_tokens", "completion_tokens")
    by_model: dict[str, tuple[list[float], list[int], list[int], list[int]]] = {}
    for name, minute, *figures in rows.values_list(*columns).order_by("minute").iterator(5000):
        times, *counts = by_model.setdefault(name, ([], [], [], []))
        times.append(minute.timestamp())
        for column, figure in zip(counts, figures, strict=True):
            column.append(figure)
    return [(name, _busy(*columns)) for name, columns in by_model.items()]


def _busy(minutes: Sequence[float], *counts: Sequence[int]) -> Packed:
    begun = np.asarray(minutes, np.float64)
    number, prompt, completion = (np.asarray(one, np.int64) for one in counts)
    return Packed(begun, begun + MINUTE_S, number, prompt, completion)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(max(at, 0.0), UTC)
