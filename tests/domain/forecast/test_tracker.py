"""Corrections make quantiles mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.backtest import Judge
from controlplane.domain.forecast.blend import Of, Tracked
from controlplane.domain.forecast.history import History, Seen
from controlplane.domain.forecast.tracker import ByHour, Conformal, Correction, Tracker

LEVELS = np.array([0.9, 0.99])
MISSED = np.ones(2, bool)


def coverage(correction: Correction, raw: Floats, outcomes: Floats, settle: int) -> Floats:
    covered = []
    for said, outcome in zip(raw, outcomes, strict=True):
        missed = outcome > np.ceil(correction.correct(said))
        covered.append(~missed)
        correction.update(said, outcome, missed)
    return np.mean(covered[settle:], axis=0)


@pytest.mark.parametrize("kind", [Tracker, Conformal, ByHour])
@pytest.mark.parametrize("bias", [-30.0, 0.0, 40.0])
def test_a_method_that_is_wrong_by_a_constant_covers_as_told_in_the_end(kind: type[Tracker], bias: float) -> None:
    random = np.random.default_rng(5)
    outcomes = random.poisson(50, 2000).astype(float)
    found = coverage(kind(LEVELS), np.full((2000, 2), 50 + bias), outcomes, 1000)
    assert np.abs(found - LEVELS).max() < 0.04


@pytest.mark.parametrize("kind", [Tracker, Conformal, ByHour])
def test_after_a_change_of_level_coverage_returns(kind: type[Tracker]) -> None:
    random = np.random.default_rng(5)
    outcomes = np.concatenate([random.poisson(20, 1000), random.poisson(60, 1000)]).astype(float)
    found = coverage(kind(LEVELS), np.full((2000, 2), 20.0), outcomes, 1300)
    assert found[0] > 0.86


def test_what_a_cold_start_needed_is_forgotten_within_days() -> None:
    tracker = Tracker(LEVELS)
    for _ in range(5):
        tracker.update(np.zeros(2), 500.0, MISSED)
    for _ in range(300):
        tracker.update(np.full(2, 50.0), 50.0, ~MISSED)
    assert tracker.correct(np.full(2, 50.0)).max() < 52


def test_by_the_hour_it_is_wide_when_rises_come_and_narrow_when_none_do() -> None:
    """Each day for two hours the outcome is 20 above what is said; else it is what is said."""
    told, said = {kind: kind(LEVELS) for kind in (Conformal, ByHour)}, np.full(2, 100.0)
    for window in range(7 * 144):
        when = window % 144 / 144
        outcome = 120.0 if 9 / 24 <= when < 11 / 24 else 100.0
        for one in told.values():
            one.update(said, outcome, outcome > np.ceil(one.correct(said, when)), 1.0, when)
    rise, night = (told[ByHour].correct(said, hour / 24) for hour in (10, 22))
    assert rise[0] > 115 and night[0] < 102
    assert night[1] > 115, "of 99% one cannot be sure"
    at_all_hours = told[Conformal].correct(said)
    assert night[0] < at_all_hours[0] < rise[0]


@pytest.mark.parametrize("kind", [Tracker, Conformal, ByHour])
def test_of_three_days_one_is_not_sure_how_unlike_the_next_one_is(kind: type[Tracker]) -> None:
    """Peaks of the day ahead, told each hour: 24 windows that overlap are one day."""
    alike, unlike = kind(np.array([0.05, 0.5, 0.99])), kind(np.array([0.05, 0.5, 0.99]))
    said = np.full(3, 100.0)
    for hour in range(3 * 24):
        for one, outcome in ((alike, 100.0), (unlike, (80.0, 100.0, 120.0)[hour // 24])):
            one.update(said, outcome, outcome > one.correct(said), 1 / 24, hour % 24 / 24)
    narrow, wide = alike.correct(said), unlike.correct(said)
    assert wide[2] > 140 and 115 < narrow[2] < wide[2], "three days alike do not promise a fourth"
    assert wide[0] < 75 and wide[0] < narrow[0] < 90
    for _ in range(30):
        alike.update(said, 100.0, np.zeros(3), 1.0)
    assert alike.correct(said)[2] < 105, "a month does"


def test_few_outcomes_tell_the_greatest_miss_at_least() -> None:
    told = Conformal(LEVELS)
    for outcome in (4.0, 9.0, 6.0):
        told.update(np.full(2, 4.0), outcome, MISSED)
    ninety, most = told.correct(np.full(2, 4.0))
    assert 9.0 <= ninety < most < 15.0


@pytest.mark.parametrize("kind", [Tracker, Conformal, ByHour])
def test_windows_that_overlap_talk_no_method_down_before_they_are_enough_that_do_not(kind: type[Tracker]) -> None:
    """A quiet weekend in windows of a day, told each hour, is two windows."""
    correction, raw = kind(LEVELS), np.full(2, 40.0)
    for _ in range(48):
        correction.update(raw, 20.0, ~MISSED * 1.0, 1 / 24)
    assert correction.correct(raw).tolist() == [40.0, 40.0]
    for _ in range(12 * 24):
        correction.update(raw, 20.0, ~MISSED * 1.0, 1 / 24)
    lower, upper = correction.correct(raw)
    assert lower < 30.0 and upper == 40.0, "ten windows tell of 90%, not of 99%"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=60), st.floats(0, 1e4))
@pytest.mark.parametrize("kind", [Tracker, Conformal, ByHour])
def test_told_quantiles_are_never_negative_and_rise_with_the_level(
    kind: type[Tracker], past: list[tuple[float, float]], said: float
) -> None:
    correction = kind(LEVELS)
    for raw, outcome in past:
        correction.update(np.full(2, raw), outcome, outcome > correction.correct(np.full(2, raw)))
    told = correction.correct(np.full(2, said))
    assert np.isfinite(told).all() and told[0] >= 0 and told[1] >= told[0]


def test_a_miss_that_is_known_before_its_window_is_over_counts_at_once_and_only_once() -> None:
    early, late = Tracker(LEVELS), Tracker(LEVELS)
    for tracker in (early, late):
        for outcome in (4.0, 9.0, 6.0) * 10:
            tracker.update(np.full(2, 4.0), outcome, ~MISSED)
    before = early.correct(np.full(2, 4.0))
    counted = early.miss(MISSED)
    assert counted.all() and (early.correct(np.full(2, 4.0)) > before).all()
    early.update(np.full(2, 4.0), 9.0, MISSED & ~counted)
    late.update(np.full(2, 4.0), 9.0, MISSED)
    # The upper level stops at the greatest residual on its way: a step's rest is less than a window's fall.
    np.testing.assert_allclose(early.correct(np.full(2, 4.0)), late.correct(np.full(2, 4.0)), atol=0.003)


def test_where_shocks_are_seldom_the_level_of_activations_holds_more_than_that_of_windows() -> None:
    """In each window one model wakes; in every fifteenth, twelve do: 7% of the windows, 43% of the activations."""
    windows, level = np.arange(1500), np.array([0.9])
    starts = np.concatenate([windows * 600.0, *(windows[14::15] * 600.0 + 20.0 * turn for turn in range(1, 12))])
    model = np.concatenate([np.zeros(1500, int), np.repeat(np.arange(1, 12), 100)])
    history = History(Requests.of(tuple("abcdefghijkl"), model, starts), 300.0, 600.0, 0.0, 900_000.0)
    asked = [Tracked(_Always(), level, of=of) for of in Of]
    told = [np.array([one.tell(history.seen_at(place)) for place in range(1499)]) for one in asked]
    windows_kept, activations_kept = (Judge(history, level, 300_000.0).score("", one) for one in told)
    assert windows_kept.coverage[0] > 0.88 and windows_kept.cold[0] > 0.3
    assert activations_kept.cold[0] < 0.12


class _Always:
    name = "one"

    def quantiles(self, seen: Seen, levels: Floats) -> Floats:
        return np.ones(len(levels))
