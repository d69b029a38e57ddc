"""How many slots are wanted now: by the newest forecast, the policy, and its floors. Read by whoever holds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controlplane.domain import holding
from controlplane.domain.holding import Floor
from controlplane.domain.reservation import Risk
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import DemandMinute
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy, Forecast

HORIZON_S = 600
FRESH = timedelta(seconds=3 * HORIZON_S)  # an older forecast tells nothing of now


def slots_wanted(now: float) -> tuple[int, str] | None:
    """(slots, why), of which those in use are a part; None: it is not known, so what is held is to be held on.

    A quantile of the newest forecast of the most active models in the next ten minutes, less the deployments that have
    partitions of their own and are active now; never less than the floor of the schedule. Without a fresh forecast a
    floor that is in force counts, and never takes below what was wanted last."""
    return wanted_by(policy.current(), now)


def wanted_by(row: CapacityPolicy, now: float) -> tuple[int, str] | None:
    """The same under this policy, which need not be the one in force."""
    moment = datetime.fromtimestamp(now, UTC)
    floor = floor_now(row, moment)
    told = _forecast(row, moment)
    if told is not None and moment - told.at <= FRESH:
        return _most(floor, *_by_forecast(row, told, moment))
    if floor is None:
        return None
    if told is None:
        return floor.slots, f"{_why(floor)}; nothing is forecast yet"
    slots, _ = _by_forecast(row, told, moment)
    return _most(floor, slots, f"the last forecast, of {told.at:%Y-%m-%d %H:%M} UTC, since there is no newer one")


def floor_now(row: CapacityPolicy, moment: datetime) -> Floor | None:
    return holding.floor_at(policy.floors_of(row), policy.zone_of(row), moment)


def by_level(row: CapacityPolicy, told: Forecast) -> tuple[int, float]:
    """(slots, the quantile they are) that the policy asks of this forecast, its floors aside."""
    level = holding.level(policy.target_of(row), told.horizon_s)
    slots = holding.quantile(told.levels, told.values, level)
    most = max(told.known_models, told.values[-1])  # beyond what was told a line goes on, but there are no more models
    return max(min(slots, most), told.active or 0), level


def _by_forecast(row: CapacityPolicy, told: Forecast, moment: datetime) -> tuple[int, str]:
    slots, level = by_level(row, told)
    own = _served_elsewhere(row.keep_alive_s, moment)
    aim = (
        f"at most {row.most_cold:.3g} of activations waiting"
        if isinstance(policy.target_of(row), Risk)
        else "least cost"
    )
    less = f", less {own} with partitions of their own" if own else ""
    return max(0, slots - own), f"{100 * level:.4g}% sure for the next {told.horizon_s // 60} min, by {aim}{less}"


def _most(floor: Floor | None, slots: int, why: str) -> tuple[int, str]:
    if floor is None or floor.slots <= slots:
        return slots, why
    return floor.slots, f"{_why(floor)}; the forecast alone asks for {slots}"


def _why(floor: Floor) -> str:
    return f"floor of the schedule, {floor}"


def _forecast(row: CapacityPolicy, moment: datetime) -> Forecast | None:
    mine = Forecast.objects.filter(horizon_s=HORIZON_S, keep_alive_s=row.keep_alive_s, at__lte=moment)
    return mine.order_by("-at").first()


def _served_elsewhere(keep_alive_s: int, moment: datetime) -> int:
    """Deployments that are active and take no slot of the pool."""
    lately = DemandMinute.objects.filter(
        minute__gt=moment - timedelta(seconds=keep_alive_s + 60), minute__lte=moment, arrivals__gt=0
    )
    dedicated = Deployment.objects.filter(mode=Deployment.Mode.DEDICATED).values("name")
    return lately.filter(deployment__in=dedicated).values("deployment").distinct().count()
