"""Which models are asked for by the clock, and when next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.rhythm import rhythm_of

HOUR = 3600.0
NOON = 1_800_000_000.0 // HOUR * HOUR


def hourly(count: int, *, jitter_s: float = 0.0, seed: int = 0) -> list[float]:
    noise = np.random.default_rng(seed).uniform(-jitter_s, jitter_s, count)
    return [NOON + k * HOUR + off for k, off in enumerate(noise.tolist())]


def test_a_job_on_the_hour_is_due_on_the_next_hour() -> None:
    found = rhythm_of(hourly(6, jitter_s=40))
    assert found is not None
    assert found.period_s == pytest.approx(HOUR, abs=30)
    assert found.due(NOON + 5 * HOUR + 600) == pytest.approx(NOON + 6 * HOUR, abs=60)
    assert found.due(NOON + 6 * HOUR + 30) == pytest.approx(NOON + 6 * HOUR, abs=60)
    assert found.due(NOON + 40.5 * HOUR) == pytest.approx(NOON + 41 * HOUR, abs=20 * 60)


def test_it_bears_with_a_begin_that_was_left_out() -> None:
    begins = hourly(9)
    del begins[4]
    found = rhythm_of(begins)
    assert found is not None
    assert found.period_s == pytest.approx(HOUR)


def test_who_comes_by_chance_follows_no_clock() -> None:
    rng = np.random.default_rng(1)
    found = [rhythm_of(np.cumsum(rng.exponential(HOUR, 20)).tolist()) for _ in range(200)]
    assert sum(one is not None for one in found) <= 4


def test_few_begins_and_short_gaps_say_nothing() -> None:
    assert rhythm_of(hourly(4)) is None
    assert rhythm_of([NOON + 60.0 * k for k in range(20)]) is None
    assert rhythm_of([]) is None
    assert rhythm_of([NOON] * 9) is None


@given(st.lists(st.floats(0, 1e7), max_size=40), st.floats(0, 2e7))
def test_whatever_the_begins_what_is_due_lies_ahead(begins: list[float], now: float) -> None:
    found = rhythm_of(sorted(begins))
    if found is not None:
        assert found.period_s > 0
        assert found.due(now) >= min(now - found.spread_s - 1.0, found.last + found.period_s)
