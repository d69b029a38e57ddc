"""Whose an engine's time is: shares add up to what was up, in every case; examples by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.usage import Stays, Ups, split

Stay = tuple[int, float, float, float]
Up = tuple[int, int, float, float]


def stays(*rows: Stay) -> Stays:
    engine, start, end, tokens = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Stays(np.array(engine, np.int64), *(np.array(one, np.float64) for one in (start, end, tokens)))


def ups(*rows: Up) -> Ups:
    engine, minute, up_s, gpus = zip(*rows, strict=True) if rows else ((), (), (), ())
    whole = (np.array(one, np.int64) for one in (engine, minute))
    return Ups(*whole, *(np.array(one, np.float64) for one in (up_s, gpus)))


def test_time_without_a_request_is_reserved() -> None:
    found = split(stays((0, 10.0, 25.0, 7)), ups((0, 0, 60.0, 4), (0, 1, 60.0, 4)))
    assert found.active.tolist() == [60.0]  # 15 s on 4 GPUs
    assert found.reserved.tolist() == [180.0, 240.0]


def test_time_together_is_split_by_tokens() -> None:
    found = split(stays((0, 0.0, 30.0, 300), (0, 0.0, 30.0, 100)), ups((0, 0, 60.0, 1)))
    assert found.active.tolist() == pytest.approx([22.5, 7.5])
    assert found.reserved.tolist() == [30.0]


def test_requests_one_after_the_other_and_overlapping_are_covered_once() -> None:
    found = split(stays((0, 0.0, 10.0, 1), (0, 5.0, 20.0, 1), (0, 6.0, 8.0, 1), (0, 40.0, 50.0, 1)), ups((0, 0, 60, 1)))
    assert sum(found.active) == pytest.approx(30.0)
    assert found.reserved.tolist() == pytest.approx([30.0])


def test_tokens_count_in_the_minutes_in_which_they_came() -> None:
    """Of the first, which takes two minutes, half the tokens fall into each; the second is alone in neither."""
    found = split(stays((0, 0.0, 120.0, 200), (0, 0.0, 60.0, 300)), ups((0, 0, 60, 1), (0, 1, 60, 1)))
    assert found.active.tolist() == pytest.approx([15.0 + 60.0, 45.0])


def test_a_request_that_reaches_beyond_the_hour_counts_for_what_lies_in_it() -> None:
    found = split(stays((0, -100.0, 30.0, 10), (0, 3570.0, 4000.0, 10)), ups((0, 0, 60, 1), (0, 59, 60, 1)))
    assert found.active.tolist() == pytest.approx([30.0, 30.0])


def test_of_an_engine_that_is_not_known_to_have_been_up_nobody_has_time() -> None:
    found = split(stays((1, 0.0, 60.0, 10), (0, 60.0, 120.0, 10)), ups((0, 0, 60, 1)))
    assert found.active.tolist() == [0.0, 0.0]
    assert found.reserved.tolist() == [60.0]


def test_a_request_is_at_an_engine_no_longer_than_the_engine_was_up() -> None:
    """It waited at the gateway until the engine came."""
    found = split(stays((0, 0.0, 60.0, 10)), ups((0, 0, 20.0, 2)))
    assert found.active.tolist() == [40.0]
    assert found.reserved.tolist() == [0.0]


def test_requests_without_tokens_are_told_apart_by_their_time() -> None:
    found = split(stays((0, 0.0, 30.0, 0), (0, 30.0, 30.0, 5), (0, 0.0, 30.0, -1)), ups((0, 0, 60, 1)))
    assert found.active.tolist() == pytest.approx([15.0, 0.0, 15.0])


def test_an_hour_without_anything_is_nothing() -> None:
    found = split(stays(), ups())
    assert len(found.active) == 0 and len(found.reserved) == 0
    assert split(stays((0, 0.0, 9.0, 1)), ups()).active.tolist() == [0.0]


times = st.floats(-4000, 8000, allow_nan=False)
some_stays = st.lists(
    st.tuples(st.integers(0, 3), times, st.floats(0, 4000), st.integers(0, 10_000)).map(
        lambda row: (row[0], row[1], row[1] + row[2], float(row[3]))
    ),
    max_size=40,
)
some_ups = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 59)),
    st.tuples(st.floats(0, 60), st.integers(1, 8).map(float)),
    max_size=40,
).map(lambda found: [(*place, *figures) for place, figures in found.items()])


@settings(max_examples=150, deadline=None)
@given(some_stays, some_ups)
def test_the_shares_of_each_engine_add_up_to_what_it_was_up(at: list[Stay], up: list[Up]) -> None:
    found = split(stays(*at), ups(*up))
    assert (found.active >= 0).all() and (found.reserved >= -1e-6).all()
    for engine in range(4):
        there = sum(row[2] * row[3] for row in up if row[0] == engine)
        active = sum(share for share, row in zip(found.active, at, strict=True) if row[0] == engine)
        reserved = sum(share for share, row in zip(found.reserved, up, strict=True) if row[0] == engine)
        assert active + reserved == pytest.approx(there, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(some_stays, some_ups, st.randoms(use_true_random=False))
def test_the_order_of_requests_changes_nothing(at: list[Stay], up: list[Up], chance: object) -> None:
    order = list(range(len(at)))
    chance.shuffle(order)
    plain, mixed = split(stays(*at), ups(*up)), split(stays(*(at[i] for i in order)), ups(*up))
    assert [plain.active[i] for i in order] == pytest.approx(mixed.active.tolist(), abs=1e-6)
    assert plain.reserved.tolist() == pytest.approx(mixed.reserved.tolist(), abs=1e-6)
