"""Says each ten minutes how many models will be active at once, and later what it came to.

What the trackers learned is not stored: it follows from the history. A process that begins asks the methods about the
last days anew, in order, and then knows what one that ran all the while would know (docs/adr/0019)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import structlog

from controlplane.domain.forecast.blend import Blend
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import UNKNOWN, History
from controlplane.domain.forecast.methods import Forecaster, make
from controlplane.domain.forecast.tracker import whole
from controlplane.planning import comparing, policy
from controlplane.planning import history as past
from controlplane.planning.models import Forecast

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


@dataclass(slots=True)
class _Asked:
    """One horizon's forecaster, and the first of its moments that it was not asked about."""

    anchor: float
    models: tuple[str, ...]
    forecaster: Forecaster
    following: int


@dataclass(slots=True)
class Forecasting:
    """For one process. Calls may come from several threads."""

    paces: Mapping[int, Pace] = field(default_factory=lambda: PACES)
    _asked: dict[tuple[int, int, str], _Asked] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self, now: float) -> int:
        """Forecast at the last whole step, if that is not done, and settle what is over; how many rows were made."""
        keep_alive_s, begin = policy.current().keep_alive_s, past.first()
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
            if due:
                rows = self._rows(due, keep_alive_s, method, now, begin)
                Forecast.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)
        settle(now, keep_alive_s, self.paces)
        return len(rows) if due else 0

    def _forget_others(self, keep_alive_s: int, method: str) -> None:
        """What was learned for a keep-alive, or by a method, that is no longer in use."""
        self._asked = {key: asked for key, asked in self._asked.items() if key[1:] == (keep_alive_s, method)}

    def _rows(self, due: dict[int, float], keep_alive_s: int, method: str, now: float, begin: float) -> list[Forecast]:
        back = (LOOK_BACK_DAYS + max(self.paces[horizon].replay_days for horizon in due)) * DAY_S
        requests, gaps = past.requests(now - back, now), past.outages(now - back, now)
        rows = []
        for horizon, at in due.items():
            pace = self.paces[horizon]
            anchor = _anchor(at, begin + keep_alive_s, pace)
            since = anchor - LOOK_BACK_DAYS * DAY_S
            before = _steps_before(anchor, max(since, begin + keep_alive_s), pace)
            seen = History(
                requests.within(since, at), keep_alive_s, horizon, anchor - before * pace.step_s, at + pace.step_s,
                pace.step_s, gaps,
            )  # fmt: skip
            rows += self._told(seen, before, (horizon, keep_alive_s, method), begin)
        return rows

    def _told(self, history: History, first: int, key: tuple[int, int, str], begin: float) -> list[Forecast]:
        """Of each moment from the place `first` on that was not asked about; all but the last are said afterwards, of
        what was known by then. `key`: (horizon, keep-alive, method)."""
        (horizon, keep_alive_s, method), names = key, history.requests.models
        last = len(history.moments) - 1
        asked = self._asked.get(key)
        if asked is None or (asked.anchor, asked.models) != (history.start, names) or asked.following > last:
            asked = self._asked[key] = _Asked(history.start, names, make([method], LEVELS)[0], first)
        rows = []
        for place in range(asked.following, last + 1):
            values, active = asked.forecaster.tell(history.seen_at(place)), int(history.active[place])
            at = float(history.moments[place])
            rows.append(
                Forecast(
                    at=_moment(at),
                    horizon_s=horizon,
                    keep_alive_s=keep_alive_s,
                    active=None if active == UNKNOWN else active,
                    known_models=len(names),
                    levels=list(LEVELS),
                    values=[int(value) for value in np.maximum(whole(values), active)],  # the peak is no less than now
                    method=asked.forecaster.name,
                    shares=_shares(asked.forecaster),
                    recorded_s=at - begin,
                    replayed=place < last,
                )
            )
        asked.following = last + 1
        return rows


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


def settle(now: float, keep_alive_s: int, paces: Mapping[int, Pace] = PACES) -> int:
    """Write what the forecasts that are over by now came to; how many. What an outage hid stays unknown."""
    settled = 0
    for horizon, pace in paces.items():
        over = Forecast.objects.filter(
            horizon_s=horizon, keep_alive_s=keep_alive_s, peak=None, at__lte=_moment(now - horizon),
            at__gt=_moment(now - horizon - (pace.replay_days + 1) * DAY_S),
        )  # fmt: skip
        rows = list(over.order_by("at"))
        if not rows:
            continue
        since = rows[0].at.timestamp()
        requests = past.requests(since - DAY_S, now)
        seen = History(
            requests, keep_alive_s, horizon, since, now - horizon + 1.0, pace.step_s, past.outages(since - DAY_S, now)
        )
        peaks = dict(zip(seen.moments.tolist(), seen.peaks.tolist(), strict=True))
        for row in rows:
            peak = peaks.get(row.at.timestamp(), UNKNOWN)
            if peak != UNKNOWN:
                row.peak = int(peak)
                settled += 1
        Forecast.objects.bulk_update([row for row in rows if row.peak is not None], ["peak"])
    return settled


def _shares(forecaster: Forecaster) -> dict[str, float]:
    if not isinstance(forecaster, Blend):
        return {forecaster.name: 1.0}
    return {name: round(float(share[-1]), 3) for name, share in forecaster.shares().items()}


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


forecasting = Forecasting()
