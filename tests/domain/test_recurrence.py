"""How likely an idle model is to be asked for again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.forecast.activity import Requests, runs
from controlplane.domain.forecast.hazards import Outage
from controlplane.domain.recurrence import EDGES_S, Recurrence, learn

HOUR, DAY = 3600.0, 86_400.0
RECURRENCES = st.builds(
    Recurrence,
    st.lists(st.floats(0, 0.1), min_size=len(EDGES_S), max_size=len(EDGES_S)).map(tuple),
    st.floats(0, 1e6),
)
SECONDS = st.floats(0, 1e5)


def learned(*gaps_s: list[float], until: float | None = None, outages: tuple[Outage, ...] = ()) -> list:
    """Of models whose requests come with these gaps."""
    at = [np.cumsum([0.0, *gaps]) for gaps in gaps_s]
    model = np.repeat(np.arange(len(at)), [len(times) for times in at])
    requests = Requests.of(tuple(f"m{place}" for place in range(len(at))), model, np.concatenate(at))
    now = requests.at.max() + 60.0 if until is None else until
    return learn(runs(requests, 0.0).known_at(now), now, outages)


def exponential(mean_s: float, count: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).exponential(mean_s, count).tolist()


def test_of_a_model_on_whose_idle_age_nothing_hangs_the_chance_is_that_of_its_pace() -> None:
    [found] = learned(exponential(1000.0, 4000))
    for idle_s in (0.0, 100.0, 900.0, 2000.0):
        assert found.within(600.0, idle_s) == pytest.approx(1 - math.exp(-0.6), abs=0.05)
    assert found.wait_s(1e5, 0.0) == pytest.approx(1000.0, rel=0.3)


def test_one_that_comes_in_bursts_is_less_likely_the_longer_it_is_idle() -> None:
    [found] = learned(([90.0] * 9 + [5 * HOUR]) * 30)
    assert found.within(300.0, 0.0) > 0.8
    assert found.within(300.0, 1200.0) < 0.2


def test_one_with_few_idle_times_borrows_from_the_fleet_and_one_with_many_does_not() -> None:
    fleet = [exponential(300.0, 200, seed) for seed in range(20)]
    *_, few, many = learned(*fleet, [6 * HOUR] * 2, [6 * HOUR] * 600)
    assert few.within(600.0, 60.0) > 2 * many.within(600.0, 60.0)


def test_idle_times_in_which_nothing_was_on_record_say_nothing() -> None:
    gaps = [600.0] * 30 + [5 * DAY] + [600.0] * 30
    [blind], [seen] = learned(gaps, outages=(Outage(5 * HOUR + 60, 5 * HOUR + 4 * DAY),)), learned(gaps)
    assert blind.within(HOUR, DAY) > seen.within(HOUR, DAY)


def test_of_one_that_was_never_asked_for_nothing_is_known() -> None:
    requests = Requests.of(("a", "never"), [0, 0], [0.0, 600.0])
    known = learn(runs(requests, 0.0).known_at(700.0), 700.0)
    assert known[1] is None
    assert known[0].since == 600.0
    assert known[0].idle_s(700.0) == 100.0
    assert known[0].idle_s(700.0, last=690.0) == 10.0


@given(RECURRENCES, SECONDS, SECONDS, SECONDS)
def test_a_chance_is_one_and_grows_with_the_time_given(one: Recurrence, a: float, b: float, idle_s: float) -> None:
    short, long = one.within(min(a, b), idle_s), one.within(max(a, b), idle_s)
    assert 0.0 <= short <= long + 1e-12 <= 1.0 + 1e-12


@given(RECURRENCES, SECONDS, SECONDS, SECONDS)
def test_chances_of_two_times_after_another_are_one_of_both(one: Recurrence, a: float, b: float, idle_s: float) -> None:
    apart = 1.0 - (1.0 - one.within(a, idle_s)) * (1.0 - one.within(b, idle_s + a))
    assert one.within(a + b, idle_s) == pytest.approx(apart, abs=1e-6)


@given(RECURRENCES, SECONDS, SECONDS)
def test_the_mean_wait_lies_within_the_time_given(one: Recurrence, seconds: float, idle_s: float) -> None:
    assert -1e-9 <= one.wait_s(seconds, idle_s) <= seconds * (1 + 1e-9)


@given(st.lists(st.lists(st.floats(1, 1e6), max_size=20), min_size=1, max_size=6))
def test_whatever_came_rates_are_finite_and_more_than_none(gaps: list[list[float]]) -> None:
    for one in learned(*gaps):
        assert one is not None
        assert all(math.isfinite(rate) and rate > 0 for rate in one.rates)
