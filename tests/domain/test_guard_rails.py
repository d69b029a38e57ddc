from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from controlplane.domain.guard_rails import Facts, Rails, held_back
from controlplane.domain.holding import parse_hours
from controlplane.domain.problems import DomainError

NOW = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)  # Wednesday, 23:30 in Berlin
RAILS = Rails(True, 6, parse_hours(["Mon-Fri 22:00-6:00"]), UTC, most_gpus=16, price_per_hour=40.0)
FACTS = Facts(moves=2, moves_last_hour=3, gpus=16, price=40.0, grows=True, problems=0)


def test_within_all_rails_nobody_is_asked() -> None:
    assert held_back(RAILS, FACTS, NOW) == []


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"moves": 4}, "more than 6"),
        ({"gpus": 17}, "more than 16"),
        ({"price": 41.0}, "more than 40.00"),
        ({"price": None}, "not known"),
        ({"problems": 1}, "stand against it"),
        ({"brake": "Many nodes are silent."}, "silent"),
        ({"open_changes": [7]}, "change 7"),
        ({"since_undone_s": 120.0}, "2 min ago"),
    ],
)
def test_each_rail_holds_and_says_why(facts: dict[str, object], word: str) -> None:
    [why] = held_back(RAILS, replace(FACTS, **facts), NOW)  # type: ignore[arg-type]
    assert word in why


def test_giving_back_is_bound_by_no_budget() -> None:
    assert held_back(RAILS, replace(FACTS, gpus=99, price=None, grows=False), NOW) == []


def test_quiet_hours_are_meant_on_the_clock_on_the_wall() -> None:
    assert held_back(replace(RAILS, zone=ZoneInfo("Europe/Berlin")), FACTS, NOW) == ["quiet hours, Mon-Fri 22:00-6:00"]


def test_off_is_off() -> None:
    assert "automatic" in held_back(replace(RAILS, auto_apply=False), FACTS, NOW)[0]


def test_hours_that_are_none_are_refused_as_hours() -> None:
    with pytest.raises(DomainError, match="no days and hours"):
        parse_hours(["every night"])
