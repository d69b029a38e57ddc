"""What stands between a new installation and its first forecast: what is missing, and when it comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controlplane.fleet import brake
from controlplane.fleet.models import GatewayBeat
from controlplane.gateway.models import DemandMinute
from controlplane.planning import history as past
from controlplane.planning import policy
from controlplane.planning.forecasting import PACES
from controlplane.planning.models import ActivityDay, Forecast
from controlplane.planning.standing import FIRST_S

LIVES = timedelta(seconds=90)  # a gateway that was heard within tells what it was asked
WORKER_SILENT_S = 120.0


@dataclass(frozen=True, slots=True)
class Beginning:
    """Times are unix seconds. `recorded_since` None: nothing is on record, and so the others are None, too. `first_at`:
    of the first forecast, by horizon in seconds; what is past is due. `what_if_at`: of the first answers to what-if.
    `anew`: there are forecasts, of another keep-alive. `worker_silent_s`: that long nothing was heard of the control
    worker, which makes them; None: nothing ever."""

    recorded_since: float | None
    models: int
    gateways: int
    first_at: dict[int, float] | None
    what_if_at: float | None
    anew: bool
    worker_silent_s: float | None

    @property
    def is_worker_silent(self) -> bool:
        return self.worker_silent_s is None or self.worker_silent_s > WORKER_SILENT_S


def beginning(now: float) -> Beginning | None:
    """None once there is a forecast for the keep-alive in use."""
    made = Forecast.objects.filter(keep_alive_s=policy.current().keep_alive_s)
    if made.exists():
        return None
    begin, looked_at = past.first(), brake.last_look()
    return Beginning(
        recorded_since=begin,
        models=_models(),
        gateways=gateways(datetime.fromtimestamp(now, UTC)),
        first_at=None
        if begin is None
        else {horizon: math.ceil(begin / pace.step_s) * pace.step_s for horizon, pace in PACES.items()},
        what_if_at=None if begin is None else begin + FIRST_S,
        anew=Forecast.objects.exists(),
        worker_silent_s=None if looked_at is None else max(0.0, now - looked_at.timestamp()),
    )


def gateways(now: datetime) -> int:
    """Those that live."""
    return GatewayBeat.objects.filter(seen_at__gt=now - LIVES).count()


def _models() -> int:
    """Of which anything is on record."""
    asked = set(DemandMinute.objects.values_list("deployment", flat=True).distinct())
    return len(asked | set(ActivityDay.objects.values_list("model", flat=True).distinct()))
