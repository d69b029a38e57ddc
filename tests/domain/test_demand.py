from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.demand import AHEAD, DAY, GUESSED, SMOOTH, coming

counts = st.lists(st.one_of(st.integers(0, 5000), st.just(math.nan), st.integers(-5, -1)), max_size=400)


def test_of_nothing_on_record_nothing_is_said() -> None:
    assert coming([]).rate == 0.0
    assert coming([math.nan, math.nan]).why == "nothing is on record"


def test_with_little_on_record_the_guess_is_wide_and_says_so() -> None:
    told = coming([60] * SMOOTH)
    assert (told.now, told.rate) == (1.0, GUESSED)
    assert "too little" in told.why


def test_a_steady_rate_is_what_is_told() -> None:
    told = coming([120] * 500)
    assert (told.now, told.rate) == (2.0, pytest.approx(2.0))


def test_what_comes_each_day_at_this_time_is_seen_coming() -> None:
    day = np.full(DAY, 6)
    day[600:660] = 600  # an hour a day a hundred times as busy
    until = np.tile(day, 4)[: 3 * DAY + 596]
    assert coming(until).rate > 5.0 > 10 * coming(until).now
    assert "a day ago" in coming(until).why


def test_its_quantile_covers_what_comes_as_often_as_it_says() -> None:
    draw = np.random.default_rng(7)
    busy = 60 * (1.2 + np.sin(np.arange(4 * DAY) / DAY * 2 * math.pi))
    arrivals = draw.poisson(busy)
    held = 0
    moments = range(2 * DAY, 4 * DAY - AHEAD, 13)
    for at in moments:
        to_come = arrivals[at : at + AHEAD].mean() / 60.0
        held += coming(arrivals[:at], level=0.95).rate >= to_come
    assert 0.88 <= held / len(moments) <= 0.99


@given(counts, st.floats(0.5, 0.99))
def test_whatever_is_on_record_a_rate_is_told_that_is_no_less_than_that_of_now(
    arrivals: list[float], level: float
) -> None:
    told = coming(arrivals, level=level)
    assert math.isfinite(told.rate)
    assert told.rate >= told.now >= 0.0


@given(st.lists(st.integers(0, 500), min_size=60, max_size=300))
def test_the_surer_the_more(arrivals: list[int]) -> None:
    rates = [coming(arrivals, level=level).rate for level in (0.5, 0.8, 0.95, 0.99)]
    assert rates == sorted(rates)
