"""How much is held ready at a moment: a quantile of what was forecast, and floors by the clock on the wall. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from statistics import NormalDist

from controlplane.domain.problems import DomainError, Problem
from controlplane.domain.reservation import Prices, Risk, critical_level

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
MOST_SLOTS = 100_000
MOST_FLOORS = 100
HIGHEST = 0.9999  # of a quantile: nothing in a forecast tells of more
_LINE = re.compile(
    r"(?P<days>[a-z,\- ]+?|\d{4}-\d\d-\d\d)\s+(?P<begin>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})\s+"
    r"(?:hold\s+)?(?P<slots>\d{1,9})(?:\s+slots?)?",
    re.IGNORECASE,
)
_FIX = (
    "Write days, hours and slots, as Mon 9:00-12:00 12, Mon-Fri 8:30-18:00 4 or Sat,Sun 22:00-2:00 1; "
    "for one day alone its date, as 2026-12-24 18:00-24:00 8."
)


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many slots on these days (0: Monday), or `on` one date alone, between two times of the wall's clock,
    minutes of the day. An end that is not after the beginning is on the next day."""

    days: tuple[int, ...]
    begin: int
    end: int
    slots: int
    on: date | None = None  # an event: then `days` is empty

    def __str__(self) -> str:
        return f"{self.hours} {self.slots}"

    @property
    def hours(self) -> str:
        """When it is in force: Mon-Fri 9:00-12:00."""
        days = self.on.isoformat() if self.on else _said_days(self.days)
        return f"{days} {_clock(self.begin)}-{_clock(self.end)}"

    def begins_on(self, day: datetime) -> bool:
        return self.on == day.date() if self.on else day.weekday() in self.days


def parse_floor(text: str) -> Floor:
    """Mon-Fri 9:00-12:00 12, or 2026-12-24 9:00-12:00 12. Raises DomainError."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        raise _refused(f"{text.strip()[:60]!r} is no floor.")
    begin, end, slots = _minute(found["begin"]), _minute(found["end"]), int(found["slots"])
    if begin == DAY_MINUTES:
        raise _refused("A day begins at 0:00 and ends at 24:00.")
    if not 1 <= slots <= MOST_SLOTS:
        raise _refused(f"A floor is 1 to {MOST_SLOTS} slots, not {slots}.")
    if found["days"][0].isdigit():
        return Floor((), begin, end, slots, _date(found["days"]))
    return Floor(_days(found["days"]), begin, end, slots)


def parse_floors(lines: Iterable[str]) -> tuple[Floor, ...]:
    """One a line; empty lines are left out. Raises DomainError."""
    found = tuple(parse_floor(line) for line in lines if line.strip())
    if len(found) > MOST_FLOORS:
        raise _refused(f"There are {len(found)} floors; at most {MOST_FLOORS} are taken.")
    return found


def parse_hours(lines: Iterable[str]) -> tuple[Floor, ...]:
    """Mon-Fri 22:00-6:00, one a line: floors whose slots mean nothing. Raises DomainError."""
    try:
        return parse_floors(f"{line.strip()} 1" for line in lines if line.strip())
    except DomainError:
        fix = "Write days and hours, one line each, as Mon-Fri 22:00-6:00 or Sat,Sun 0:00-24:00."
        raise DomainError(Problem("hours", "These are no days and hours. Nothing was changed.", fix)) from None


def floor_at(floors: Iterable[Floor], zone: tzinfo, now: datetime) -> Floor | None:
    """The highest that is in force at `now`; None where none is."""
    today = now.astimezone(zone)
    near = [today - timedelta(days=1), today]
    holding = [
        one
        for one in floors
        for day in near
        if one.begins_on(day)
        for begin, end in [span(one, day, zone)]
        if begin <= now < end
    ]
    return max(holding, key=lambda one: one.slots, default=None)


def span(floor: Floor, day: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """From when to when it is in force that begins on the date of `day`, in UTC. Where clocks are set back, from the
    first time that they show its beginning to the last that they show its end; a time that they leave out is taken to
    come as much later, so that no floor is lost to a change of clocks."""
    begin, last = _wall(day, floor.begin, zone), _wall(day, floor.end, zone, next_day=floor.end <= floor.begin)
    return begin.astimezone(UTC), max(last.astimezone(UTC), last.replace(fold=1).astimezone(UTC))


def level(target: Risk | Prices, horizon_s: float, gpus: int = 1) -> float:
    """The quantile of a window's peak to hold. By prices: a miss against an idle slot of `gpus` over the window."""
    if isinstance(target, Risk):
        wanted = 1.0 - target.most_cold
    else:
        wanted = critical_level(target.cold, target.idle_gpu_hour * gpus * horizon_s / 3600.0)
    return min(max(wanted, 0.0), HIGHEST)


def quantile(levels: Sequence[float], values: Sequence[float], wanted: float) -> int:
    """Whole models at a level between, below or above those that were told: straight lines over the normal quantile, as
    the outermost two go on. Levels rise; never less than 0."""
    normal = NormalDist()
    at = [normal.inv_cdf(one) for one in levels]
    x = normal.inv_cdf(min(max(wanted, 1.0 - HIGHEST), HIGHEST))
    place = min(max(sum(one < x for one in at), 1), len(at) - 1)
    low, high = values[place - 1], values[place]
    slope = (high - low) / (at[place] - at[place - 1])
    return max(0, math.ceil(low + slope * (x - at[place - 1]) - 1e-9))


def wanted(levels: Sequence[float], values: Sequence[int], at: float, *, known_models: int, active: int) -> int:
    """Slots to hold at this level of a forecast, those of the `active` models among them."""
    most = max(known_models, values[-1])  # beyond what was told a line goes on, but there are no more models
    return max(min(quantile(levels, values, at), most), active)


def _wall(day: datetime, minute: int, zone: tzinfo, *, next_day: bool = False) -> datetime:
    whole = timedelta(days=next_day + minute // DAY_MINUTES)
    return (datetime(day.year, day.month, day.day) + whole).replace(
        hour=minute % DAY_MINUTES // 60, minute=minute % 60, tzinfo=zone, fold=0
    )


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        end = _day(last) if dash else begin
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return tuple(sorted(found))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _refused(f"There is no day {text}.") from None


def _day(text: str) -> int:
    """By its first three letters, whole or cut."""
    name = text[:3].capitalize()
    whole = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    if name not in DAYS or not whole[DAYS.index(name)].startswith(text.lower()):
        raise _refused(f"{text!r} is no day of the week.")
    return DAYS.index(name)


def _minute(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if minutes > 59 or hours * 60 + minutes > DAY_MINUTES:
        raise _refused(f"{text} is no time of the day.")
    return hours * 60 + minutes


def _said_days(days: Sequence[int]) -> str:
    first, last = days[0], days[-1]
    if len(days) > 2 and tuple(days) == tuple(range(first, last + 1)):
        return f"{DAYS[first]}-{DAYS[last]}"
    return ",".join(DAYS[day] for day in days)


def _clock(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02d}"


def _refused(message: str) -> DomainError:
    return DomainError(Problem("floor", f"{message} Nothing was changed.", _FIX))
