"""Of any history, however short, odd or broken: methods answer, and what is no news changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.backtest import run
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import NAMES, make

LEVELS = (0.05, 0.5, 0.95, 0.99)
MODELS = tuple("abcde")
SPAN_S = 2 * 3600
COUNTS_REQUESTS = "Aegaeon"  # by its formula


class Row(NamedTuple):
    model: int
    at: int
    lasted: int


class World(NamedTuple):
    """How a history is looked at."""

    keep_alive_s: float
    horizon_s: float
    step_s: float
    outages: tuple[Outage, ...] = ()


rows = st.lists(
    st.builds(Row, st.integers(0, 4), st.integers(0, SPAN_S), st.sampled_from([0, 1, 30, 900, 9000])), max_size=60
)
gaps = st.lists(
    st.builds(lambda start, s: Outage(start, start + s), st.integers(0, SPAN_S), st.integers(1, SPAN_S)), max_size=2
)
worlds = st.builds(
    World, st.sampled_from([60.0, 300.0, 7200.0]), st.sampled_from([300.0, 600.0, 3600.0]),
    st.sampled_from([600.0, 3600.0]), gaps.map(lambda found: tuple(sorted(found, key=lambda one: one.start))),
)  # fmt: skip


def requests(found: Sequence[Row], shift_s: float = 0.0) -> Requests:
    at = np.array([row.at for row in found], np.float64) + shift_s
    until = at + np.array([row.lasted for row in found], np.float64)
    return Requests.of(MODELS, [row.model for row in found], at, until)


def answers(asked: Requests, world: World, *, start: float = 0.0, span_s: float = SPAN_S) -> dict[str, Floats]:
    """Of every moment, also of those whose windows are not over."""
    keep_alive_s, horizon_s, step_s, outages = world
    history = History(asked, keep_alive_s, horizon_s, start, start + span_s, step_s, outages)
    methods = make(NAMES, LEVELS)
    return {
        one.name: np.array([one.tell(history.seen_at(place)) for place in range(len(history.moments))])
        for one in methods
    }


@settings(max_examples=15, deadline=None)
@given(rows, worlds)
def test_of_any_history_and_of_a_longer_one_answers_are_finite_not_negative_and_rise_with_the_level(
    found: list[Row], world: World
) -> None:
    again = [row._replace(at=row.at + SPAN_S) for row in found]
    for history, span_s in ((found, SPAN_S), ([*found, *again], 2 * SPAN_S)):
        for name, told in answers(requests(history), world, span_s=span_s).items():
            assert np.isfinite(told).all() and (told >= 0).all(), name
            assert (np.diff(told, axis=1) >= -1e-9).all(), name


@settings(max_examples=8, deadline=None)
@given(rows, worlds, st.randoms(use_true_random=False))
def test_order_duplicates_and_rows_that_are_no_times_change_no_answer(found: list[Row], world: World, random) -> None:  # type: ignore[no-untyped-def]
    told = [*found, *found]
    random.shuffle(told)
    at = np.array([row.at for row in told] + [np.nan, 100.0, np.inf, -np.inf, 200.0])
    until = np.array([row.at + row.lasted for row in told] + [100.0, np.nan, np.inf, 300.0, np.inf])
    model = [row.model for row in told] + [0, 1, 2, 3, 4]
    odd = answers(Requests.of(MODELS, model, at, until), world)
    for name, plain in answers(requests(found), world).items():
        if name != COUNTS_REQUESTS:
            np.testing.assert_array_equal(plain, odd[name], err_msg=name)


@settings(max_examples=8, deadline=None)
@given(rows, worlds, st.integers(1, 20_000))
def test_the_same_days_on_other_dates_are_told_the_same(found: list[Row], world: World, days: int) -> None:
    """Days are whole and all alike: no calendar, no zone and no change of clocks is in the rules."""
    by = days * DAY_S
    later = world._replace(outages=tuple(Outage(one.start + by, one.end + by) for one in world.outages))
    moved = answers(requests(found, by), later, start=by)
    for name, told in answers(requests(found), world).items():
        np.testing.assert_allclose(told, moved[name], atol=1e-3, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(rows, worlds)
def test_before_any_outcome_is_known_an_answer_holds_who_is_active_now(found: list[Row], world: World) -> None:
    keep_alive_s, horizon_s, step_s, _ = world
    history = History(requests(found), keep_alive_s, horizon_s, SPAN_S, SPAN_S + step_s, step_s)
    active = history.active[0]
    for name in ("last", "montecarlo", "best"):
        told = make([name], LEVELS)[0].tell(history.seen_at(0))
        assert told[-1] >= active - 1e-9, name


@settings(max_examples=15, deadline=None)
@given(rows, worlds)
def test_any_history_can_be_judged(found: list[Row], world: World) -> None:
    keep_alive_s, horizon_s, step_s, outages = world
    history = History(requests(found), keep_alive_s, horizon_s, 0.0, SPAN_S, step_s, outages)
    scores = run(history, make(("best", "last"), LEVELS), LEVELS, judge_from=SPAN_S / 2).scores
    for one in scores:
        if one.windows:
            assert ((one.coverage >= 0) & (one.coverage <= 1)).all() and ((one.cold >= 0) & (one.cold <= 1)).all()
            assert (one.held >= one.used - 1e-9).all()
