"""The one row that says what is held ready: reading it, and the only way that it is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings

from controlplane.audit.services import Actor
from controlplane.domain.holding import Floor, parse_floors
from controlplane.domain.problems import DomainError, Problem
from controlplane.domain.reservation import Prices, Risk
from controlplane.fleet import policy_row
from controlplane.fleet.errors import Invalid
from controlplane.planning.bursts import MERGED_S
from controlplane.planning.models import CapacityPolicy

FIELDS = ("keep_alive_s", "aim", "most_cold", "gpu_hour_price", "cold_price", "floors", "time_zone")
KEEP_ALIVE_S = (int(MERGED_S), 24 * 3600)
MOST_COLD = (1e-4, 0.5)
LARGEST_PRICE = 1e9
_ROW = 1


def current() -> CapacityPolicy:
    """As it is in force. Until somebody changes it, it is what the environment says."""
    return CapacityPolicy.objects.filter(pk=_ROW).first() or _by_environment()


def changed(values: Mapping[str, Any]) -> CapacityPolicy:
    """As it would be with these; nothing is kept. Raises Invalid."""
    row = current()
    _put(row, values)
    return row


def change(*, actor: Actor, reason: str = "", expected_version: int | None = None, **values: Any) -> CapacityPolicy:
    """What is given of FIELDS is changed, and holds from the next minute. `expected_version`: as the caller saw it;
    raises Conflict where somebody was faster, Invalid where the values make no sense."""
    return policy_row.change(
        _by_environment(),
        values,
        put=_put,
        fields=FIELDS,
        actor=actor,
        reason=reason,
        expected_version=expected_version,
    )


def shown(row: CapacityPolicy) -> dict[str, Any]:
    return policy_row.shown(row, FIELDS)


def floors_of(row: CapacityPolicy) -> tuple[Floor, ...]:
    return parse_floors(row.floors)


def zone_of(row: CapacityPolicy) -> ZoneInfo:
    return ZoneInfo(row.time_zone)


def target_of(row: CapacityPolicy) -> Risk | Prices:
    if row.aim == CapacityPolicy.Aim.PRICES and row.cold_price and row.gpu_hour_price:
        return Prices(row.cold_price, row.gpu_hour_price)
    return Risk(row.most_cold)


def _by_environment() -> CapacityPolicy:
    return CapacityPolicy(
        pk=_ROW, keep_alive_s=settings.CAPACITY_KEEP_ALIVE_S, most_cold=settings.CAPACITY_MOST_COLD, floors=[]
    )


def _put(row: CapacityPolicy, values: Mapping[str, Any]) -> None:
    problems = _problems({**shown(row), **values})
    try:
        floors = [str(one) for one in parse_floors(values.get("floors", row.floors))]
    except DomainError as error:
        problems.append(error.problem)
    if problems:
        raise Invalid(problems)
    for name in FIELDS:
        if name in values:
            setattr(row, name, values[name])
    row.floors = floors


def _problems(wanted: Mapping[str, Any]) -> list[Problem]:
    found, nothing = [], "Nothing was changed."
    if not KEEP_ALIVE_S[0] <= wanted["keep_alive_s"] <= KEEP_ALIVE_S[1]:
        fix = f"Give {KEEP_ALIVE_S[0]} to {KEEP_ALIVE_S[1]} seconds."
        found.append(Problem("keep-alive", f"A keep-alive of {wanted['keep_alive_s']} s is not taken. {nothing}", fix))
    if not MOST_COLD[0] <= wanted["most_cold"] <= MOST_COLD[1]:
        fix = f"Give {MOST_COLD[0]:g} to {MOST_COLD[1]:g}, as 0.01 for 1%."
        found.append(Problem("most-cold", f"A share of {wanted['most_cold']} is not taken. {nothing}", fix))
    prices = [wanted["gpu_hour_price"], wanted["cold_price"]]
    if any(one is not None and not (math.isfinite(one) and 0 < one <= LARGEST_PRICE) for one in prices):
        fix = f"Give more than 0 and at most {LARGEST_PRICE:g}, or leave it out."
        found.append(Problem("price", f"A price is not a number above 0. {nothing}", fix))
    if wanted["aim"] == CapacityPolicy.Aim.PRICES and None in prices:
        fix = "Give what a GPU-hour and a cold wait cost, or aim at a share of waits."
        found.append(Problem("prices-missing", f"What costs least is not known without both prices. {nothing}", fix))
    if wanted["aim"] not in CapacityPolicy.Aim.values:
        found.append(
            Problem("aim", f"There is no such aim. {nothing}", f"Use {' or '.join(CapacityPolicy.Aim.values)}.")
        )
    if wanted["time_zone"] not in available_timezones():
        fix = "Use a name of the time zone database, as UTC or Europe/Berlin."
        found.append(Problem("time-zone", f"{str(wanted['time_zone'])[:64]!r} is no time zone. {nothing}", fix))
    return found
