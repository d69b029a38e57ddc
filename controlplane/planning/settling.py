"""Writes beside forecasts that are over what they came to, of all models and of each size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.forecast.history import UNKNOWN, History
from controlplane.planning import history as past
from controlplane.planning import slot_sizes
from controlplane.planning.history import Reading
from controlplane.planning.models import Forecast

Peaks = Mapping[float, int]  # by moment, of those on record


@dataclass(frozen=True, slots=True)
class _Seen:
    """How windows are looked at that begin between two moments."""

    keep_alive_s: float
    horizon_s: float
    start: float
    end: float
    step_s: float
    outages: tuple[Outage, ...]

    def peaks(self, requests: Requests) -> Peaks:
        seen = History(requests, self.keep_alive_s, self.horizon_s, self.start, self.end, self.step_s, self.outages)
        found = zip(seen.moments.tolist(), seen.peaks.tolist(), strict=True)
        return {at: int(peak) for at, peak in found if peak != UNKNOWN}

    def of_size(self, requests: Requests, places: Mapping[int, int]) -> Peaks:
        """In slots; where some models take two, at most: the peak of these and that of the others may be apart."""
        found: dict[float, int] = {}
        for slots in sorted(set(places.values())):
            part = requests.only([place for place, count in places.items() if count == slots])
            for at, peak in self.peaks(part).items():
                found[at] = found.get(at, 0) + slots * peak
        return found


def settle(reading: Reading, keep_alive_s: int, paces: Mapping[int, tuple[float, int]]) -> int:
    """How many, of those that are over when `reading` ends. What an outage hid stays unknown. `paces`: by horizon,
    seconds between forecasts, and days after which what is not settled stays so."""
    now, settled, sizes = reading.until, 0, slot_sizes.read()
    over = {horizon: rows for horizon, (_, days) in paces.items() if (rows := _over(horizon, days, keep_alive_s, now))}
    # The furthest first: then all are read at once.
    for horizon, rows in sorted(over.items(), key=lambda one: one[1][0].at):
        step_s, since = paces[horizon][0], rows[0].at.timestamp()
        requests, gaps = reading.requests(since - DAY_S), past.outages(since - DAY_S, now)
        seen = _Seen(keep_alive_s, horizon, since, now - horizon + 1.0, step_s, gaps)
        split = sizes.split(requests.models) if any(row.by_size for row in rows) else {}
        by_size = {gpus: seen.of_size(requests, places) for gpus, places in split.items()}
        done = _came_to(rows, seen.peaks(requests), by_size)
        Forecast.objects.bulk_update(done, ["peak", "by_size"])
        settled += len(done)
    return settled


def _over(horizon: int, days: int, keep_alive_s: int, now: float) -> list[Forecast]:
    """The oldest first."""
    over = Forecast.objects.filter(
        horizon_s=horizon, keep_alive_s=keep_alive_s, peak=None, at__lte=_moment(now - horizon),
        at__gt=_moment(now - horizon - days * DAY_S),
    )  # fmt: skip
    return list(over.order_by("at"))


def _came_to(rows: list[Forecast], peaks: Peaks, by_size: Mapping[int, Peaks]) -> list[Forecast]:
    """Those that were over and on record. Of a size that no model has any longer the peak is 0."""
    done = [row for row in rows if row.at.timestamp() in peaks]
    for row in done:
        row.peak = peaks[row.at.timestamp()]
        for one in row.by_size:
            one["peak"] = by_size.get(one["gpus"], {}).get(row.at.timestamp(), 0)
    return done


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
