"""Tokens of requests in the next hour, as quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.lengths import BEYOND, DAY, FEWEST, LEAST_REQUESTS, LEVELS, LOOK_BACK, coming

hours = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 1e9), st.just(math.nan), st.just(-1.0), st.just(math.inf)),
        st.one_of(st.integers(0, 10_000), st.just(math.nan), st.just(-3)),
    ),
    max_size=300,
)
mixed = st.lists(  # of chats and batches, most of them known
    st.tuples(
        st.sampled_from((60.0, 70.0, 2000.0, 20_000.0)).map(lambda mean: 20.0 * mean),
        st.sampled_from((20, 20, 20, 20, math.nan)),
    ),
    min_size=30,
    max_size=120,
)


def test_of_too_few_hours_nothing_is_told() -> None:
    assert coming([], []) is None
    assert coming([1000.0] * FEWEST, [10.0] * FEWEST) is None
    assert coming([1000.0] * 100, [LEAST_REQUESTS - 1] * 100) is None


def test_what_is_always_as_long_is_told_so_and_held_always() -> None:
    told = coming([5000.0] * 60, [10.0] * 60)
    assert told is not None and told.now == 500.0
    assert told.means == pytest.approx([500.0] * len(LEVELS)) and told.covered == (1.0,) * len(LEVELS)


def test_what_is_long_at_this_time_each_day_is_seen_coming() -> None:
    day = np.full(DAY, 200.0)
    day[9] = 4000.0
    means = np.tile(day, 8)[: 7 * DAY + 9]
    told = coming(means * 20, np.full(len(means), 20.0))
    assert told is not None and told.now == 200.0
    assert told.at(0.5) > 3000.0 and told.why.startswith("as a day ago")


@pytest.mark.parametrize("memory", [0.0, 0.9, 1.0])
def test_its_quantiles_hold_as_often_as_they_say_whether_lengths_drift_or_not(memory: float) -> None:
    """Without a look ahead, over worlds: independent hours, slow returns to a mean, and a walk that never does."""
    held, share = np.zeros(len(LEVELS)), 0.0
    for seed in range(40):
        dice, level, found = np.random.default_rng(seed), 0.0, []
        for _ in range(8 * DAY):
            level = memory * level + dice.normal(0, 0.2)
            found.append(800.0 * math.exp(level))
        told = coming(np.array(found[:-1]) * 30, np.full(len(found) - 1, 30.0))
        assert told is not None and list(told.means) == sorted(told.means)
        held += np.array(told.means) >= found[-1]
        share += told.covered[2] or 0.0
    assert share / 40 == pytest.approx(0.95, abs=0.02), "of past hours, which it says of itself"
    assert held[1] / 40 >= 0.75 and held[2] / 40 >= 0.85 and held[3] >= held[2]


def test_a_few_long_hours_make_no_lengths_far_beyond_what_any_hour_had() -> None:
    """Batches at times of no day: how much longer they are than chats is not laid on them once more."""
    for seed in range(10):
        dice = np.random.default_rng(seed)
        means = np.where(dice.random(8 * DAY) < 0.08, 20_000.0, 60.0 * np.exp(dice.normal(0, 0.1, 8 * DAY)))
        means[-1] = 20_000.0
        told = coming(means * 20, np.full(len(means), 20.0))
        assert told is not None and told.means[-1] <= BEYOND * 20_000.0 + 1e-6


def test_of_eleven_hours_it_is_not_known_how_often_the_quantiles_hold() -> None:
    told = coming([5000.0] * (FEWEST + 1), [10.0] * (FEWEST + 1))
    assert told is not None and told.windows == 0 and told.covered == (None,) * len(LEVELS)
    assert told.why == "as in the last hour" and told.at(0.95) == pytest.approx(500.0)
    more = coming([5000.0] * (FEWEST + 2), [10.0] * (FEWEST + 2))
    assert more is not None and more.windows == 1 and more.covered == (1.0,) * len(LEVELS)


@given(st.one_of(hours, mixed))
def test_whatever_is_on_record_what_is_told_lies_near_the_hours_means(record: list[tuple[float, float]]) -> None:
    told = coming([one for one, _ in record], [one for _, one in record])
    means = [
        tokens / requests
        for tokens, requests in record[-LOOK_BACK:]
        if requests >= LEAST_REQUESTS and tokens > 0 and math.isfinite(tokens) and tokens / requests > 0
    ]
    if told is None:
        assert len(means) <= FEWEST
        return
    low, high = min(means) / BEYOND * (1 - 1e-9), max(means) * BEYOND * (1 + 1e-9)
    assert all(low <= one <= high for one in told.means) and list(told.means) == sorted(told.means)


@given(hours, st.floats(0.01, 100.0))
def test_whatever_is_on_record_what_is_told_is_finite_rises_with_the_level_and_scales(
    record: list[tuple[float, float]], factor: float
) -> None:
    tokens, requests = [one for one, _ in record], [one for _, one in record]
    told = coming(tokens, requests)
    if told is None:
        return
    assert all(math.isfinite(one) and one > 0 for one in told.means)
    assert list(told.means) == sorted(told.means)
    assert all(one is None if not told.windows else 0.0 <= (one or 0.0) <= 1.0 for one in told.covered)
    more = coming([one * factor if math.isfinite(one) and one > 0 else one for one in tokens], requests)
    assert more is not None and more.at(0.95) == pytest.approx(factor * told.at(0.95), rel=1e-3)


@given(hours)
def test_hours_of_which_nothing_is_known_say_nothing(record: list[tuple[float, float]]) -> None:
    """Only that the hour to come is not the one after: no way but the last hour's tells the same of it."""
    tokens, requests = [one for one, _ in record], [one for _, one in record]
    gap = coming([*tokens, *[math.nan] * 30], [*requests, *[math.nan] * 30])
    assert gap is None or all(math.isfinite(one) for one in gap.means)
