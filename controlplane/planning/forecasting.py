"""Says each ten minutes how many models will be active at once, and later what it came to.

What the trackers learned is not stored: it follows from the history. A process that begins asks the methods about the
last days anew, in order, and then knows what one that ran all the while would know (docs/adr/0019)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import structlog

from controlplane.domain.forecast.activity import Floats, Ints, Requests
from controlplane.domain.forecast.blend import Blend
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import UNKNOWN
from controlplane.domain.forecast.methods import Forecaster
from controlplane.domain.forecast.montecarlo import MonteCarlo
from controlplane.domain.forecast.tracker import whole
from controlplane.fleet.models import Deployment
from controlplane.planning import comparing, policy, settling, slot_sizes
from controlplane.planning import history as past
from controlplane.planning.agreeing import agree
from controlplane.planning.history import Reading
from controlplane.planning.learned import Asked, Key, Span
from controlplane.planning.models import Forecast
from controlplane.planning.slot_sizes import Sizes

log = structlog.get_logger(__name__)

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LOOK_BACK_DAYS = 7  # that methods look at before the first moment that they are asked about


@dataclass(frozen=True, slots=True)
class Pace:
    """A decision each `step_s`; a process that begins asks about the last `replay_days` anew: what a tracker and the
    weights of methods still remember, and what a process can afford."""

    step_s: float
    replay_days: int


PACES = {600: Pace(600.0, 2), 3600: Pace(600.0, 2), 86_400: Pace(3600.0, 8)}  # by horizon, seconds
HORIZONS_S = tuple(PACES)


@dataclass(frozen=True, slots=True)
class _Said:
    active: int | None
    values: list[int]  # by level
    method: str
    shares: dict[str, float]


@dataclass(slots=True)
class Forecasting:
    """For one process. Calls may come from several threads."""

    paces: Mapping[int, Pace] = field(default_factory=lambda: PACES)
    _asked: dict[Key, Asked] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self, now: float, reading: Reading | None = None) -> int:
        """Forecast at the last whole step, if that is not done, and settle what is over; how many rows were made.
        `reading`: of this moment, which others go on with."""
        keep_alive_s, begin, reading = policy.current().keep_alive_s, past.first(), reading or Reading(now)
        if begin is None:
            return 0
        with self._lock:
            method = comparing.chosen()
            self._forget_others(keep_alive_s, method)
            due = {
                horizon: at
                for horizon, pace in self.paces.items()
                if (at := _due(horizon, pace, keep_alive_s, now, begin)) is not None
            }
            made = 0
            for rows in self._rows(due, keep_alive_s, method, reading, begin) if due else ():
                agree(rows, self.paces)
                Forecast.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)
                made += len(rows)
        days = {horizon: (pace.step_s, pace.replay_days + 1) for horizon, pace in self.paces.items()}
        settling.settle(reading, keep_alive_s, days)
        return made

    def _forget_others(self, keep_alive_s: int, method: str) -> None:
        """What was learned for a keep-alive, or by a method, that is no longer in use."""
        mine = (keep_alive_s, method)
        self._asked = {key: asked for key, asked in self._asked.items() if (key.keep_alive_s, key.method) == mine}

    def _rows(
        self, due: dict[int, float], keep_alive_s: int, method: str, reading: Reading, begin: float
    ) -> Iterator[list[Forecast]]:
        """A horizon after the other, the nearest first: a process that begins needs a minute for each, and what is to
        be held follows from the first."""
        now = reading.until
        back = (LOOK_BACK_DAYS + 1 + max(self.paces[horizon].replay_days for horizon in due)) * DAY_S
        requests, gaps = reading.requests(now - back), past.outages(now - back, now)
        sizes = slot_sizes.read()
        for horizon, at in due.items():
            pace = self.paces[horizon]
            anchor = _anchor(at, begin + keep_alive_s, pace)
            since = anchor - LOOK_BACK_DAYS * DAY_S
            first = _steps_before(anchor, max(since, begin + keep_alive_s), pace)
            start, end = anchor - first * pace.step_s, at + pace.step_s
            mine = requests.within(since, at).asked()
            key, unseen = Key(horizon, keep_alive_s, method), _unseen(mine.models)
            span = Span(key, start, end, pace.step_s, first, gaps, unseen)
            yield self._told(mine, span, begin, sizes)

    def _told(self, requests: Requests, span: Span, begin: float, sizes: Sizes) -> list[Forecast]:
        """A row for each moment that was not asked about, of all models and of each size; all but the last are said
        afterwards, of what was known by then."""
        key, last, parts = span.key, span.end - span.step_s, _parts(sizes, requests.models)
        rows = [
            Forecast(
                at=_moment(at),
                horizon_s=key.horizon_s,
                keep_alive_s=key.keep_alive_s,
                active=said.active,
                known_models=len(requests.models),
                levels=list(LEVELS),
                values=said.values,
                method=said.method,
                shares=said.shares,
                recorded_s=at - begin,
                replayed=at < last,
            )
            for at, said in self._ask(requests, span, parts=tuple(parts.values())).items()
        ]
        self._by_size(rows, requests, span, sizes, parts)
        return rows

    def _by_size(
        self, rows: list[Forecast], requests: Requests, span: Span, sizes: Sizes, parts: Mapping[tuple[int, int], Ints]
    ) -> None:
        """Those that take two slots of a size are asked about by themselves: what is told of them counts twice. All are
        read off the plays of the whole fleet, which take most of the time."""
        plays = self._asked[span.key].plays
        for number, ((gpus, slots), places) in enumerate(parts.items()):
            part = requests.only(places)
            said = self._ask(part, replace(span, key=replace(span.key, gpus=gpus, slots=slots)), of=(plays, number))
            size = {"gpus": gpus, "models": len(part.models), "assumed": sizes.assumed(part.models)}
            for row in rows:
                if (one := said.get(row.at.timestamp())) is not None:
                    _count_in(row.by_size, size, one, slots)
        plays.kept.clear()

    def _ask(
        self,
        requests: Requests,
        span: Span,
        *,
        parts: tuple[Ints, ...] = (),
        of: tuple[MonteCarlo, int] | None = None,
    ) -> dict[float, _Said]:
        """By moment, of those that this forecaster was not asked about."""
        history, names = span.seen(requests), requests.models
        last, anchor = len(history.moments) - 1, float(history.moments[span.first])
        asked = self._asked.get(span.key)
        if asked is None or not asked.follows(requests, history, span):
            asked = self._asked[span.key] = Asked.anew(span, anchor, names, LEVELS)
        asked.join(names, history)
        asked.plays.parts, asked.plays.of = parts, of
        found, most = {}, _most(requests, history.moments, span.key.horizon_s)
        if span.unseen is not None:
            most[-1] = min(most[-1], len(names) + span.unseen)  # of moments before, it is not known what was deployed
        for place in range(asked.following, last + 1):
            values, active = asked.forecaster.tell(history.seen_at(place)), int(history.active[place])
            said = np.maximum(np.minimum(whole(values), most[place]), active)  # the peak is no less than now
            found[float(history.moments[place])] = _Said(
                active=None if active == UNKNOWN else active,
                values=[int(value) for value in said],
                method=asked.forecaster.name,
                shares=_shares(asked.forecaster),
            )
        asked.following = last + 1
        return found


def _count_in(by_size: list[dict[str, Any]], size: dict[str, int], said: _Said, slots: int) -> None:
    """Into the row of its size, in slots. A sum of quantiles is as a rule more than the quantile of the sum."""
    mine = next((one for one in by_size if one["gpus"] == size["gpus"]), None)
    active = None if said.active is None else slots * said.active
    values = [slots * value for value in said.values]
    if mine is None:
        by_size.append({**size, "slots": slots * size["models"], "active": active, "values": values})
        return
    mine["models"] += size["models"]
    mine["assumed"] += size["assumed"]
    mine["slots"] += slots * size["models"]
    mine["active"] = None if active is None or mine["active"] is None else mine["active"] + active
    mine["values"] = [one + more for one, more in zip(mine["values"], values, strict=True)]


def _parts(sizes: Sizes, models: Sequence[str]) -> dict[tuple[int, int], Ints]:
    """By the GPUs of a slot and how many such a model takes: the places of these models."""
    found: dict[tuple[int, int], list[int]] = {}
    for gpus, places in sizes.split(models).items():
        for slots in sorted(set(places.values())):
            found[gpus, slots] = [place for place, count in places.items() if count == slots]
    return {key: np.array(places, np.int64) for key, places in found.items()}


def _most(requests: Requests, moments: Floats, horizon_s: float) -> Ints:
    """At each moment: the models that were seen by then, and as many new ones as the day or horizon before brought, one
    at least. The first surprises of a record widen a forecast beyond that, but there are no more models."""
    first = np.sort(requests.at[np.unique(requests.model, return_index=True)[1]])
    known = np.searchsorted(first, moments, side="right")
    before = np.searchsorted(first, moments - max(horizon_s, DAY_S), side="right")
    return np.asarray(known + np.maximum(known - before, 1), np.int64)


def _unseen(models: Sequence[str]) -> int | None:
    """How many deployments there are of which nothing is on record; None where none of those on record is here, as with
    the imported history of another fleet."""
    deployed = set(Deployment.objects.values_list("name", flat=True))
    return len(deployed.difference(models)) if deployed.intersection(models) else None


def _due(horizon: int, pace: Pace, keep_alive_s: int, now: float, begin: float) -> float | None:
    """The moment of the last whole step; None where a forecast was made at it, or nothing was on record by then."""
    at = float(np.floor(now / pace.step_s) * pace.step_s)
    there = Forecast.objects.filter(at=_moment(at), horizon_s=horizon, keep_alive_s=keep_alive_s)
    return None if at < begin or there.exists() else at


def _anchor(at: float, known_from: float, pace: Pace) -> float:
    """The first moment that is asked about: a midnight, so that all processes ask about the same ones."""
    midnight = float(np.floor(at / DAY_S) * DAY_S) - pace.replay_days * DAY_S
    return min(at, max(midnight, float(np.ceil(known_from / pace.step_s) * pace.step_s)))


def _steps_before(anchor: float, known_from: float, pace: Pace) -> int:
    """Moments before the first that is asked about of which methods see the peaks."""
    return max(0, int((anchor - known_from) // pace.step_s))


def _shares(forecaster: Forecaster) -> dict[str, float]:
    if not isinstance(forecaster, Blend):
        return {forecaster.name: 1.0}
    return {name: round(float(share[-1]), 3) for name, share in forecaster.shares().items()}


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


forecasting = Forecasting()
