"""How many slots are wanted now: by the newest forecast, the policy, and its floors. Read by whoever holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from controlplane.domain import holding
from controlplane.domain.holding import Floor
from controlplane.domain.reservation import Risk
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import DemandMinute
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy, Forecast
from controlplane.teams import floors

HORIZON_S = 600
ONE = 1  # GPUs of a slot where nothing else is known
FRESH = timedelta(seconds=3 * HORIZON_S)  # an older forecast tells nothing of now


@dataclass(frozen=True, slots=True)
class Wanted:
    """`sizes`: slots by their GPUs, which add up to `slots`; `assumed`: models of which no slot is known to hold them,
    whose slots are taken to be of one GPU."""

    slots: int
    why: str
    sizes: Mapping[int, int]
    assumed: int = 0


def wanted_by(row: CapacityPolicy, now: float) -> Wanted | None:
    """What is to be held under this policy, which need not be the one in force, and why; those in use are a part of it.
    None: it is not known, so what is held is to be held on.

    A quantile of the newest forecast of the most active models in the next ten minutes, less the deployments that have
    partitions of their own and are active now; never less than the floor of the schedule, nor fewer GPUs than the
    floors of teams come to. Without a fresh forecast a floor of the schedule that is in force counts, and never takes
    below what was wanted last."""
    return _for_teams(_by_policy(row, now), floors.promised())


def _by_policy(row: CapacityPolicy, now: float) -> Wanted | None:
    moment = datetime.fromtimestamp(now, UTC)
    floor = floor_now(row, moment)
    told = _forecast(row, moment)
    if told is not None and moment - told.at <= FRESH:
        return _most(floor, _by_forecast(row, told, moment))
    if floor is None:
        return None
    if told is None:
        return Wanted(floor.slots, f"{_why(floor)}; nothing is forecast yet", {ONE: floor.slots})
    why = f"the last forecast, of {told.at:%Y-%m-%d %H:%M} UTC, since there is no newer one"
    return _most(floor, replace(_by_forecast(row, told, moment), why=why))


def floor_now(row: CapacityPolicy, moment: datetime) -> Floor | None:
    return holding.floor_at(policy.floors_of(row), policy.zone_of(row), moment)


def by_forecast(row: CapacityPolicy, told: Forecast) -> dict[int, int]:
    """Slots by their GPUs that the policy asks of this forecast, its floors aside."""
    levels = _levels(row, told)
    if not told.by_size:
        return {ONE: _quantile(told, levels[ONE], told.values, told.known_models, told.active)}
    return {
        one["gpus"]: _quantile(told, levels[one["gpus"]], one["values"], one.get("slots", one["models"]), one["active"])
        for one in told.by_size
    }


def at_least(floor: Floor | None, sizes: Mapping[int, int]) -> dict[int, int]:
    """A floor names no sizes: what it adds are slots of the smallest."""
    least, lacking = min(sizes), (floor.slots if floor else 0) - sum(sizes.values())
    return {**sizes, least: sizes[least] + max(0, lacking)}


def _levels(row: CapacityPolicy, told: Forecast) -> dict[int, float]:
    """By the GPUs of a slot: an idle one costs as many GPU-hours as it has GPUs, a wait the same on any."""
    target = policy.target_of(row)
    every = [one["gpus"] for one in told.by_size] or [ONE]
    return {gpus: holding.level(target, told.horizon_s, gpus) for gpus in every}


def _by_forecast(row: CapacityPolicy, told: Forecast, moment: datetime) -> Wanted:
    sizes = by_forecast(row, told)
    own = 0 if told.by_size else _served_elsewhere(row.keep_alive_s, moment)
    if own:
        sizes = {ONE: max(0, sizes[ONE] - own)}
    aim = (
        f"at most {100 * row.most_cold:.3g}% of activations waiting"
        if isinstance(policy.target_of(row), Risk)
        else "least cost"
    )
    less = f", less {own} with partitions of their own" if own else ""
    why = f"{_sure(_levels(row, told))} for the next {told.horizon_s // 60} min, by {aim}{less}"
    return Wanted(sum(sizes.values()), why, sizes, sum(one["assumed"] for one in told.by_size))


def _sure(levels: Mapping[int, float]) -> str:
    said = {gpus: f"{100 * level:.4g}% sure" for gpus, level in levels.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{sure} of slots of {gpus}" for gpus, sure in said.items())


def _quantile(told: Forecast, level: float, values: Sequence[int], models: int, active: int | None) -> int:
    return holding.wanted(told.levels, values, level, known_models=models, active=active or 0)


def _most(floor: Floor | None, wanted: Wanted) -> Wanted:
    if floor is None or floor.slots <= wanted.slots:
        return wanted
    why = f"{_why(floor)}; the forecast alone asks for {wanted.slots}"
    return Wanted(floor.slots, why, at_least(floor, wanted.sizes), wanted.assumed)


def _for_teams(wanted: Wanted | None, gpus: int) -> Wanted | None:
    """What floors of teams add are slots of the smallest size, too. Where nothing is known what is held is held on."""
    if wanted is None or (lacking := gpus - sum(size * count for size, count in wanted.sizes.items())) <= 0:
        return wanted
    least = min(wanted.sizes)
    sizes = {**wanted.sizes, least: wanted.sizes[least] - (-lacking // least)}
    why = f"floors of teams, {gpus} GPUs; without them {wanted.slots}: {wanted.why}"
    return replace(wanted, slots=sum(sizes.values()), why=why, sizes=sizes)


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
