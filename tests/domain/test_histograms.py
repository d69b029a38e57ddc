from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.histograms import Counts, growth, mean, merged, quantile
from workers.contract import Histogram

OLD, NEW = (0.01, 0.1, 1.0, 10.0), (0.005, 0.05, 0.1, 0.5, 2.0)
SECONDS = st.lists(st.floats(0.0001, 9.0), min_size=1, max_size=60)


def wire(seconds: list[float], bounds: tuple[float, ...] = OLD) -> Histogram:
    """As an agent sends it: bounds that say nothing are left out."""
    cumulative = [sum(s <= le for s in seconds) for le in bounds]
    around = [0, *cumulative, len(seconds)]
    kept = [i for i in range(len(bounds)) if not around[i] == around[i + 1] == around[i + 2]]
    return Histogram(
        tuple(bounds[i] for i in kept), tuple(float(cumulative[i]) for i in kept), len(seconds), sum(seconds)
    )


def counted(seconds: list[float], bounds: tuple[float, ...] = OLD) -> Counts:
    found = growth(Histogram((), (), 0, 0.0), wire(seconds, bounds))
    assert found is not None
    return found


def test_growth_is_what_came_since() -> None:
    before, after = wire([0.005, 0.5]), wire([0.005, 0.5, 0.05, 0.6, 50.0])
    found = growth(before, after)
    assert found is not None
    assert found.inside == {(0.01, 0.1): 1.0, (0.1, 1.0): 1.0, (10.0, math.inf): 1.0}
    assert found.sum_s == pytest.approx(50.65)


def test_a_bound_that_was_left_out_before_is_not_taken_for_zero() -> None:
    before = wire([0.005, 0.005])  # says nothing of the bounds above 0.1
    found = growth(before, wire([0.005, 0.005, 5.0]))
    assert found is not None
    assert found.inside == {(1.0, 10.0): 1.0}


def test_no_growth_is_nothing_observed() -> None:
    assert growth(wire([0.5]), wire([0.5])) == Counts()


@pytest.mark.parametrize(
    "after",
    [
        Histogram((), (), 0, 0.0),  # fell: another process
        Histogram((1.0,), (2.0, 3.0), 5, 1.0),
        Histogram((2.0, 1.0), (1.0, 2.0), 5, 1.0),
        Histogram((1.0, 2.0), (3.0, 2.0), 5, 1.0),
        Histogram((1.0,), (9.0,), 5, 1.0),
        Histogram((math.nan,), (1.0,), 5, 1.0),
        Histogram((1.0,), (1.0,), 1e300, 1.0),
    ],
)
def test_what_cannot_be_read_says_nothing(after: Histogram) -> None:
    assert growth(wire([0.5, 0.6]), after) is None


def test_a_quantile_lies_evenly_within_its_interval() -> None:
    assert quantile(Counts(0, {(1.0, 2.0): 4.0}), 0.25) == 1.25
    assert quantile(Counts(0, {(0.0, 1.0): 1.0, (2.0, 4.0): 1.0}), 0.75) == 3.0


def test_beyond_the_last_bound_is_at_least_that_bound() -> None:
    assert quantile(Counts(0, {(0.0, 1.0): 1.0, (10.0, math.inf): 9.0}), 0.95) == 10.0


def test_of_nothing_there_is_no_quantile_and_no_mean() -> None:
    assert (quantile(Counts(), 0.5), mean(Counts())) == (None, None)


def test_intervals_of_two_versions_overlap_and_add_up() -> None:
    both = Counts(0, {(0.0, 1.0): 10.0, (0.5, 1.5): 10.0})
    assert quantile(both, 0.25) == pytest.approx(0.5)  # 5 of the 20 lie below 0.5, all of the first
    assert quantile(both, 0.75) == pytest.approx(1.0)
    assert quantile(both, 1.0) == 1.5


@given(SECONDS, st.sampled_from([OLD, NEW]), st.floats(0.01, 1.0))
def test_a_quantile_is_off_by_no_more_than_the_interval_it_falls_in(
    seconds: list[float], bounds: tuple[float, ...], share: float
) -> None:
    rank = max(1, math.ceil(share * len(seconds) - 1e-9))
    true = sorted(seconds)[rank - 1]
    place = bisect_left(bounds, true)
    low = bounds[place - 1] if place else 0.0
    high = bounds[place] if place < len(bounds) else low
    found = quantile(counted(seconds, bounds), share)
    assert found is not None
    assert low - 1e-9 <= found <= high + 1e-9


@given(SECONDS, SECONDS, st.floats(0.0, 1.0))
def test_two_parts_give_the_quantile_of_the_whole(one: list[float], two: list[float], share: float) -> None:
    whole = quantile(counted(one + two), share)
    assert quantile(merged([counted(one), counted(two)]), share) == pytest.approx(whole)


@given(SECONDS, SECONDS)
def test_quantiles_rise_and_counts_are_kept_when_bounds_differ(one: list[float], two: list[float]) -> None:
    both = merged([counted(one, OLD), counted(two, NEW)])
    found = [quantile(both, share / 10) for share in range(11)]
    assert all(a is not None and b is not None and a <= b + 1e-9 for a, b in pairwise(found))
    assert both.total == pytest.approx(len(one) + len(two))
    assert both.sum_s == pytest.approx(sum(one) + sum(two))


@given(SECONDS, SECONDS)
def test_growth_over_a_time_is_the_sum_of_growth_over_its_parts(one: list[float], two: list[float]) -> None:
    start, middle, end = Histogram((), (), 0, 0.0), wire(one), wire(one + two)
    first, second, whole = growth(start, middle), growth(middle, end), growth(start, end)
    assert first is not None and second is not None and whole is not None
    assert quantile(merged([first, second]), 0.5) == pytest.approx(quantile(whole, 0.5))
    assert merged([first, second]).total == whole.total
