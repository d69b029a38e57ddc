"""What a policy comes to by the habits of the last week: slots, waits and money. Read off the curves of standing.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from controlplane.domain.reservation import Prices
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy, Standing

HOURS = 24 * 30
LEAST = 1e-9
Curve = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Weighed:
    """`slots`: None where no record tells, or the curve ends before; `gpus`: that they have; `waits_per_hour`:
    activations that find none; `cost`: of 30 days, GPUs held and waits, None without both prices; `about`: read
    off other keep-alives' curves."""

    slots: int | None
    gpus: int | None
    cold: float | None
    idle_slots: float | None
    activations_per_hour: float | None
    waits_per_hour: float | None
    cost: float | None
    days: float
    about: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """What one keep-alive comes to."""

    slots: float = 0.0
    gpus: float = 0.0
    idle: float = 0.0
    activations_per_hour: float = 0.0
    waits_per_hour: float = 0.0

    def plus(self, other: _Read, share: float = 1.0) -> _Read:
        return _Read(*(a + share * b for a, b in zip(astuple(self), astuple(other), strict=True)))


def weigh(row: CapacityPolicy) -> Weighed:
    near = _near(row.keep_alive_s, list(Standing.objects.all()))
    days, found = near[0][0].days if near else 0.0, _Read()
    for one, share in near:
        if (read := _read(row, one)) is None:
            near = []
            break
        found = found.plus(read, share)
    if not near:
        return Weighed(None, None, None, None, None, None, None, days, about=False)
    slots, gpus = (math.ceil(one - LEAST) for one in (found.slots, found.gpus))
    rate, waits = found.activations_per_hour, found.waits_per_hour
    about = len(near) > 1 or near[0][0].keep_alive_s != row.keep_alive_s
    cold, cost = waits / rate if rate else 0.0, _cost(row, gpus, waits)
    return Weighed(slots, gpus, cold, found.idle, rate, waits, cost, days, about)


def _read(row: CapacityPolicy, one: Standing) -> _Read | None:
    """Each size has slots of its own; where all are of one GPU, the curve of all models tells. None: beyond an end."""
    parts = one.by_size or [{"gpus": 1, "curve": one.curve, "activations_per_hour": one.activations_per_hour}]
    found = _Read()
    for part in parts:
        rate = part["activations_per_hour"]
        if (point := _point(row, part["curve"], rate, part["gpus"])) is None:
            return None
        slots, cold, idle = point
        found = found.plus(_Read(slots, slots * part["gpus"], idle, rate, rate * cold))
    return found


def _cost(row: CapacityPolicy, gpus: int, waits_per_hour: float) -> float | None:
    """Of 30 days, by both prices."""
    if row.gpu_hour_price is None or row.cold_price is None:
        return None
    return HOURS * (gpus * row.gpu_hour_price + waits_per_hour * row.cold_price)


def _near(keep_alive_s: int, rows: list[Standing]) -> list[tuple[Standing, float]]:
    """The curve of this keep-alive, or the two beside it, by how near they are in ratio; beyond the last, the last."""
    if not rows:
        return []
    rows.sort(key=lambda one: one.keep_alive_s)
    above = next((place for place, one in enumerate(rows) if one.keep_alive_s >= keep_alive_s), None)
    if above is None or above == 0 or rows[above].keep_alive_s == keep_alive_s:
        return [(rows[-1 if above is None else above], 1.0)]
    low, high = rows[above - 1], rows[above]
    part = math.log(keep_alive_s / low.keep_alive_s) / math.log(high.keep_alive_s / low.keep_alive_s)
    return [(low, 1.0 - part), (high, part)]


def _point(row: CapacityPolicy, curve: Curve, rate_per_hour: float, gpus: int) -> tuple[float, float, float] | None:
    """(slots, share of activations that are cold, mean idle slots) at what the policy aims at; slots are of `gpus`."""
    target = policy.target_of(row)
    if isinstance(target, Prices):

        def cost(point: Sequence[float]) -> float:
            return target.idle_gpu_hour * gpus * point[2] + target.cold * rate_per_hour * point[1]

        slots, cold, idle = min(curve, key=cost)
        return slots, cold, idle
    return _at(curve, target.most_cold)


def _at(curve: Curve, most_cold: float) -> tuple[float, float, float] | None:
    """Between two points, by straight lines over the logarithm of the share that is cold."""
    place = next((place for place, point in enumerate(curve) if point[1] <= most_cold), None)
    if place is None:
        return None
    slots, cold, idle = curve[place]
    if place == 0:
        return slots, cold, idle
    before, high, before_idle = curve[place - 1]
    part = (math.log(high) - math.log(most_cold)) / (math.log(high) - math.log(max(cold, LEAST)))
    whole = math.ceil(before + (slots - before) * part - LEAST)
    part = (whole - before) / (slots - before)
    return whole, most_cold, before_idle + (idle - before_idle) * part
