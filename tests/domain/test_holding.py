"""What is held: floors by the clock on the wall, whatever is done to clocks, and quantiles of a forecast."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.holding import (
    DAY_MINUTES,
    Floor,
    floor_at,
    level,
    parse_floor,
    parse_floors,
    quantile,
    span,
)
from controlplane.domain.problems import DomainError
from controlplane.domain.reservation import Prices, Risk

BERLIN = ZoneInfo("Europe/Berlin")
NAMES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
ZONES = st.sampled_from([ZoneInfo(name) for name in NAMES])
FLOORS = st.builds(
    Floor,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.integers(0, DAY_MINUTES - 1),
    st.integers(1, DAY_MINUTES),
    st.integers(1, 1000),
)
MOMENTS = st.datetimes(datetime(2024, 1, 2), datetime(2027, 12, 30), timezones=st.just(UTC))


@given(FLOORS)
def test_a_floor_reads_as_it_is_written(floor: Floor) -> None:
    assert parse_floor(str(floor)) == floor


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Monday 9:00-12:00 hold 12 slots", Floor((0,), 540, 720, 12)),
        ("fri-mon 22:00-2:00 3", Floor((0, 4, 5, 6), 1320, 120, 3)),
        ("Sat, Sun 0:00 - 24:00 1 slot", Floor((5, 6), 0, 1440, 1)),
        ("2026-12-24 18:00-2:00 hold 8 slots", Floor((), 1080, 120, 8, date(2026, 12, 24))),
    ],
)
def test_floors_are_written_as_people_say_them(text: str, meant: Floor) -> None:
    assert parse_floor(text) == meant


@pytest.mark.parametrize(
    "text", ["", "Mon", "Mox 9:00-12:00 1", "Mondays 9:00-12:00 1", "Mon 9:60-12:00 1", "Mon 24:00-12:00 1",
             "Mon 9:00-24:01 1", "Mon 9:00-12:00 0", "Mon 9:00-12:00 -3", "Mon 9:00-12:00 100001", "Mon- 9:00-12:00 1",
             "2026-02-30 9:00-12:00 1", "2026-1-5 9:00-12:00 1", "Mon,2026-12-24 9:00-12:00 1"],
)  # fmt: skip
def test_what_is_no_floor_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DomainError, match="Nothing was changed") as refused:
        parse_floor(text)
    assert "Mon 9:00-12:00 12" in refused.value.problem.fix
    assert parse_floors(["", "  "]) == ()
    with pytest.raises(DomainError, match="at most 100"):
        parse_floors(["Mon 9:00-12:00 1"] * 101)


@given(FLOORS, MOMENTS, ZONES)
def test_on_a_day_on_which_no_clock_is_changed_the_wall_decides(floor: Floor, now: datetime, zone: ZoneInfo) -> None:
    near = [(now + timedelta(days=days)).astimezone(zone).utcoffset() for days in (-2, 2)]
    if near[0] != near[1]:
        return
    wall = now.astimezone(zone)
    minute, overnight = wall.hour * 60 + wall.minute, floor.end <= floor.begin
    today, before = wall.weekday() in floor.days, (wall.weekday() - 1) % 7 in floor.days
    end = DAY_MINUTES if overnight else floor.end
    said = (today and floor.begin <= minute < end) or (overnight and before and minute < floor.end)
    assert (floor_at([floor], zone, now) is floor) == said


@given(FLOORS, MOMENTS, ZONES)
def test_no_change_of_clocks_takes_a_floor_away_or_makes_it_more_than_an_hour_longer(
    floor: Floor, now: datetime, zone: ZoneInfo
) -> None:
    begin, end = span(floor, now.astimezone(zone), zone)
    told = timedelta(minutes=floor.end - floor.begin + DAY_MINUTES * (floor.end <= floor.begin))
    hour = timedelta(hours=1)
    assert told - hour <= end - begin <= told + hour and (end - begin > timedelta(0))
    if told <= hour:
        assert end - begin >= min(told, timedelta(minutes=1))
    day = now.astimezone(zone)
    if day.weekday() in floor.days:
        assert floor_at([floor], zone, begin) is floor


@pytest.mark.parametrize(
    ("day", "text", "begin", "end"),
    [
        ("2026-03-29", "Sun 1:00-4:00 1", "00:00", "02:00"),  # clocks go from 2:00 to 3:00: two hours
        ("2026-03-29", "Sun 2:00-2:30 1", "01:00", "01:30"),  # left out on the wall, not left out
        ("2026-10-25", "Sun 2:00-3:00 1", "00:00", "02:00"),  # the wall shows it twice
        ("2026-10-25", "Sun 2:15-2:45 1", "00:15", "01:45"),
    ],
)
def test_on_the_days_when_clocks_are_changed(day: str, text: str, begin: str, end: str) -> None:
    found = span(parse_floor(text), datetime.fromisoformat(day), BERLIN)
    assert [f"{one:%H:%M}" for one in found] == [begin, end]


@pytest.mark.parametrize("zone", NAMES)
def test_one_of_a_date_is_in_force_that_day_alone_by_the_wall_of_its_zone(zone: str) -> None:
    floors, there = parse_floors(["2026-12-24 18:00-2:00 8"]), ZoneInfo(zone)
    assert str(floors[0]) == "2026-12-24 18:00-2:00 8"
    moments = ("2026-12-17T20:00", "2026-12-24T17:59", "2026-12-24T18:00", "2026-12-25T01:59", "2026-12-25T02:00",
               "2026-12-25T18:00", "2027-12-24T20:00")  # fmt: skip
    held = [floor_at(floors, there, datetime.fromisoformat(moment).replace(tzinfo=there)) for moment in moments]
    assert [one is not None for one in held] == [False, False, True, True, False, False, False]


def test_the_highest_of_the_floors_in_force_counts() -> None:
    floors = parse_floors(["Mon-Fri 8:00-18:00 4", "Mon 9:00-12:00 12"])
    monday = datetime(2026, 7, 6, tzinfo=BERLIN)
    held = [floor_at(floors, BERLIN, monday + timedelta(hours=hour)) for hour in (7, 8, 10, 12, 18)]
    assert [one.slots if one else 0 for one in held] == [0, 4, 12, 4, 0]


LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
VALUES = st.lists(st.integers(0, 10_000), min_size=6, max_size=6).map(sorted)


@given(VALUES, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_level_never_holds_less(values: list[int], one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert 0 <= quantile(LEVELS, values, low) <= quantile(LEVELS, values, high)


@given(VALUES)
def test_at_the_levels_that_were_told_the_values_are_as_told(values: list[int]) -> None:
    assert [quantile(LEVELS, values, one) for one in LEVELS] == values


@given(st.floats(1e-6, 0.5), st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_less_risk_and_a_dearer_wait_hold_more(risk: float, price: float, idle: float) -> None:
    assert level(Risk(risk), 600) >= level(Risk(risk * 2), 600)
    assert level(Prices(price, idle), 600) <= level(Prices(price * 2, idle), 600)
    assert level(Prices(price, idle), 600) >= level(Prices(price, idle * 2), 600)
    assert 0 < level(Prices(price, idle), 600) < 1
