"""From requests to the number of active models."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.forecast.activity import Requests, count, runs

AB = ("a", "b")


def test_a_model_is_active_until_keep_alive_after_its_last_request_ended() -> None:
    active = runs(Requests.of(AB, [0, 0, 0], [0, 50, 500], [10, 60, 520]), 100)
    assert active.start.tolist() == [0, 500]
    assert active.end.tolist() == [160, 620]


def test_a_long_request_holds_its_model_though_shorter_ones_ended_after_it_began() -> None:
    active = runs(Requests.of(AB, [0, 0, 0], [0, 5, 300], [400, 6, 301]), 10)
    assert (active.start.tolist(), active.end.tolist()) == ([0], [410])


def test_requests_of_other_models_do_not_join_runs() -> None:
    active = runs(Requests.of(AB, [0, 1, 0], [0, 10, 20]), 5)
    assert active.model.tolist() == [0, 0, 1]
    assert active.start.tolist() == [0, 20, 10]


def test_the_peak_of_a_window_counts_what_is_active_at_its_start_and_not_what_comes_at_its_end() -> None:
    number = count(runs(Requests.of(AB, [0, 1], [0, 100]), 50))  # a: 0..50, b: 100..150
    assert number.at([-1, 0, 49, 50, 100, 150]).tolist() == [0, 1, 1, 0, 1, 0]
    assert number.peak([0, 40, 50, 60], 50).tolist() == [1, 1, 0, 1]
    assert number.mean(0, 200) == 0.5


def test_who_leaves_makes_room_for_who_comes_at_the_same_moment() -> None:
    number = count(runs(Requests.of(AB, [0, 1], [0, 50]), 50))
    assert number.peak([0], 200).tolist() == [1]


def test_weights_count_the_gpus_that_models_need() -> None:
    active = runs(Requests.of(AB, [0, 1], [0, 10]), 50)
    assert count(active, [2, 4]).peak([0], 100).tolist() == [6]


def test_no_requests_are_no_activity() -> None:
    nothing = runs(Requests.of(AB, [], []), 60)
    assert count(nothing).peak([0, 600], 600).tolist() == [0, 0]


def test_rows_that_are_no_numbers_or_of_no_model_are_left_out_and_ends_before_begins_are_mended() -> None:
    found = Requests.of(AB, [0, 0, 1, 7], [1, np.nan, 5, 6], [2, 3, 1, np.inf])
    assert (found.at.tolist(), found.until.tolist()) == ([1, 5], [2, 5])


rows = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5000), st.floats(0, 300)), max_size=40)


def log(found: list[tuple[int, float, float]]) -> Requests:
    return Requests.of(
        ("a", "b", "c", "d"), [row[0] for row in found], [row[1] for row in found], [row[1] + row[2] for row in found]
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.floats(1, 600), st.integers(0, 2**32 - 1))
def test_order_and_duplicates_of_rows_are_immaterial(
    found: list[tuple[int, float, float]], keep_alive_s: float, seed: int
) -> None:
    moments = np.linspace(0, 6000, 50)
    mixed = [found[place] for place in np.random.default_rng(seed).permutation(len(found))] + found[:3]
    before, after = (count(runs(log(one), keep_alive_s)) for one in (found, mixed))
    assert before.peak(moments, 300).tolist() == after.peak(moments, 300).tolist()


@settings(max_examples=60, deadline=None)
@given(rows, st.floats(1, 600), st.floats(0, 600))
def test_the_count_is_what_counting_by_hand_says_and_a_longer_keep_alive_never_lowers_it(
    found: list[tuple[int, float, float]], keep_alive_s: float, more_s: float
) -> None:
    moments = np.arange(0.5, 6000, 97.0)
    short, long = (count(runs(log(found), seconds)).at(moments) for seconds in (keep_alive_s, keep_alive_s + more_s))
    by_hand = [
        len({model for model, at, lasted in found if at <= moment < at + lasted + keep_alive_s}) for moment in moments
    ]
    assert short.tolist() == by_hand
    assert (long >= short).all()
