"""The number of models that are expected in the next hour, by the newest forecast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controlplane.planning import policy
from controlplane.planning.forecasting import LEVELS
from controlplane.planning.models import Forecast
from controlplane.planning.reserve import FRESH

HORIZON_S = 3600
MEDIAN, MOST = LEVELS.index(0.5), LEVELS.index(0.95)


@dataclass(frozen=True, slots=True)
class Coming:
    """The most models that are active at once until an hour after `at`: as likely more as less than `median`, in 95 of
    100 hours no more than `most`."""

    at: datetime
    median: int
    most: int


def coming(now: datetime) -> Coming | None:
    """None: there is no forecast, or none that is fresh."""
    mine = Forecast.objects.filter(horizon_s=HORIZON_S, keep_alive_s=policy.current().keep_alive_s, replayed=False)
    told = mine.filter(at__gt=now - FRESH).order_by("-at").values_list("at", "values").first()
    if told is None or len(told[1]) != len(LEVELS):
        return None
    return Coming(told[0], told[1][MEDIAN], told[1][MOST])
