"""Who is woken before anybody asks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.prewarming import AT_ONCE, Due, Sleeper, chance, choose, due
from controlplane.domain.recurrence import EDGES_S, Recurrence
from controlplane.domain.rhythm import Rhythm

HOUR = 3600.0
HOURLY = Rhythm(HOUR, 10 * HOUR, 60.0, 0.95)
RATE = 1 / 200.0  # one that is asked for each 200 s
OFTEN = Recurrence((RATE,) * len(EDGES_S), 0.0)
SELDOM = Recurrence((1 / 7200.0,) * len(EDGES_S), 0.0)
SLEEPER = Sleeper("a", None, None, 900.0, 30.0)
DUES = st.lists(
    st.builds(Due, st.text("abcdef", min_size=1, max_size=3), st.floats(0, 1), st.booleans(), st.just("")),
    unique_by=lambda one: one.name,
    max_size=8,
)


def asked(sleeper: Sleeper, now: float = 0.0) -> Due | None:
    return due(sleeper, now=now, keep_alive_s=300.0)


def test_by_its_clock_it_is_woken_as_long_before_as_it_takes_to_start_and_no_earlier() -> None:
    hourly = replace(SLEEPER, rhythm=HOURLY)
    assert asked(hourly, 11 * HOUR - 100) is None
    found = asked(hourly, 11 * HOUR - 85)
    assert found is not None
    assert (found.by_clock, found.chance) == (True, 0.95)
    assert "each 60 min" in found.reason
    assert asked(replace(hourly, start_s=200.0), 11 * HOUR - 250) is not None


def test_it_is_woken_where_the_wait_is_worth_more_than_the_slot() -> None:
    often, seldom = (replace(SLEEPER, recurrence=one) for one in (OFTEN, SELDOM))
    found = asked(often)
    assert found is not None
    assert not found.by_clock
    assert "chance of 81%" in found.reason
    assert asked(seldom) is None
    assert asked(SLEEPER) is None, "of whom nothing is known"


def test_who_was_woken_in_vain_has_to_be_surer_each_time() -> None:
    often = replace(SLEEPER, recurrence=OFTEN)
    assert [asked(replace(often, missed=times)) is not None for times in range(4)] == [True, True, False, False]
    hourly = replace(SLEEPER, rhythm=HOURLY)
    found = [asked(replace(hourly, missed=times), 11 * HOUR) for times in range(6)]
    assert [one is not None for one in found] == [True, True, True, True, False, False]
    assert found[1] is not None
    assert not found[1].by_clock, "it takes no slot that is held for others"


def test_slots_that_are_held_for_others_are_for_those_due_by_their_clock_alone() -> None:
    clock, likely = Due("clock", 0.8, True, ""), Due("likely", 0.9, False, "")
    assert choose([likely, clock], free=1, reserved=1, under_way=0) == [clock]
    assert choose([likely, clock], free=2, reserved=1, under_way=0) == [clock]
    assert choose([likely, clock], free=3, reserved=1, under_way=0) == [clock, likely]
    assert choose([likely, clock], free=3, reserved=1, under_way=1) == [clock]


@given(DUES, st.integers(0, 6), st.integers(0, 6), st.integers(0, 3))
def test_never_more_than_are_free_nor_than_may_start_at_once(
    found: list[Due], free: int, reserved: int, under_way: int
) -> None:
    chosen = choose(found, free=free, reserved=reserved, under_way=under_way)
    assert len(chosen) <= min(free, max(0, AT_ONCE - under_way))
    for place, one in enumerate(chosen):
        assert one.by_clock or free - place > reserved


def test_a_chance_is_by_idle_times_and_by_the_clock_and_unknown_is_not_none() -> None:
    told = {"now": 11 * HOUR - 300, "idle_s": 900.0}
    assert chance(None, None, within_s=600.0, **told) is None
    assert chance(None, HOURLY, within_s=600.0, **told) == 0.95
    assert chance(None, HOURLY, within_s=60.0, **told) == 0.0
    by_age = chance(OFTEN, None, within_s=600.0, **told)
    both = chance(OFTEN, HOURLY, within_s=600.0, **told)
    assert by_age is not None
    assert both is not None
    assert 0.9 < by_age < both < 1.0
