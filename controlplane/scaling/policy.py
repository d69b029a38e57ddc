"""The one row that says how plans are made and when one is applied by itself: reading it, and the only way that it is
changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from controlplane.audit.services import Actor
from controlplane.domain.guard_rails import Rails
from controlplane.domain.holding import parse_hours
from controlplane.domain.lengths import LEVELS
from controlplane.domain.problems import DomainError, Problem
from controlplane.fleet import policy_row
from controlplane.fleet.errors import Invalid
from controlplane.scaling.models import ScalingPolicy

FIELDS = (
    "auto_apply", "auto_switch", "level", "lengths_level", "quiet_s", "moves_per_hour", "quiet_hours", "time_zone",
    "most_gpus", "price_per_hour",
)  # fmt: skip
BOUNDS = {
    "level": (0.5, 0.999), "lengths_level": (LEVELS[0], LEVELS[-1]), "quiet_s": (60, 24 * 3600),
    "moves_per_hour": (1, 1000),
}  # fmt: skip
LARGEST = 1_000_000
_ROW = 1


def current() -> ScalingPolicy:
    return ScalingPolicy.objects.filter(pk=_ROW).first() or _fresh()


def change(*, actor: Actor, reason: str = "", expected_version: int | None = None, **values: Any) -> ScalingPolicy:
    """What is given of FIELDS is changed, and holds from the next look. `expected_version`: as the caller saw it;
    raises Conflict where somebody was faster, Invalid where the values make no sense."""
    return policy_row.change(
        _fresh(), values, put=_put, fields=FIELDS, actor=actor, reason=reason, expected_version=expected_version
    )


def shown(row: ScalingPolicy) -> dict[str, Any]:
    return policy_row.shown(row, FIELDS)


def rails(row: ScalingPolicy) -> Rails:
    return Rails(
        auto_apply=row.auto_apply,
        auto_switch=row.auto_switch,
        moves_per_hour=row.moves_per_hour,
        quiet=parse_hours(row.quiet_hours),
        zone=ZoneInfo(row.time_zone),
        most_gpus=row.most_gpus,
        price_per_hour=row.price_per_hour,
    )


def _fresh() -> ScalingPolicy:
    return ScalingPolicy(pk=_ROW, quiet_hours=[])


def _put(row: ScalingPolicy, values: Mapping[str, Any]) -> None:
    problems = _problems({**shown(row), **values})
    try:
        hours = [one.hours for one in parse_hours(values.get("quiet_hours", row.quiet_hours))]
    except DomainError as error:
        problems.append(error.problem)
    if problems:
        raise Invalid(problems)
    for name in FIELDS:
        if name in values:
            setattr(row, name, values[name])
    row.quiet_hours = hours


def _problems(wanted: Mapping[str, Any]) -> list[Problem]:
    found, nothing = [], "Nothing was changed."
    for name, (least, most) in BOUNDS.items():
        if not least <= wanted[name] <= most:
            found.append(Problem(name, f"{wanted[name]} is not taken. {nothing}", f"Give {least:g} to {most:g}."))
    gpus, price = wanted["most_gpus"], wanted["price_per_hour"]
    if gpus is not None and not 0 < gpus <= LARGEST:
        found.append(Problem("most_gpus", f"{gpus} GPUs are not taken. {nothing}", f"Give 1 to {LARGEST}, or nothing."))
    if price is not None and not (math.isfinite(price) and 0 < price <= LARGEST):
        fix = f"Give more than 0 and at most {LARGEST}, or nothing."
        found.append(Problem("price_per_hour", f"The price is not a number above 0. {nothing}", fix))
    if wanted["time_zone"] not in available_timezones():
        fix = "Use a name of the time zone database, as UTC or Europe/Berlin."
        found.append(Problem("time_zone", f"{str(wanted['time_zone'])[:64]!r} is no time zone. {nothing}", fix))
    return found
