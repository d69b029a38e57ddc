"""Corrections make quantiles mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.tracker import Conformal, Correction, Tracker

LEVELS = np.array([0.9, 0.99])
MISSED = np.ones(2, bool)


def coverage(correction: Correction, raw: Floats, outcomes: Floats, settle: int) -> Floats:
    covered = []
    for said, outcome in zip(raw, outcomes, strict=True):
        missed = outcome > np.ceil(correction.correct(said))
        covered.append(~missed)
        correction.update(said, outcome, missed)
    return np.mean(covered[settle:], axis=0)


@pytest.mark.parametrize("kind", [Tracker, Conformal])
@pytest.mark.parametrize("bias", [-30.0, 0.0, 40.0])
def test_a_method_that_is_wrong_by_a_constant_covers_as_told_in_the_end(kind: type[Tracker], bias: float) -> None:
    random = np.random.default_rng(5)
    outcomes = random.poisson(50, 2000).astype(float)
    found = coverage(kind(LEVELS), np.full((2000, 2), 50 + bias), outcomes, 1000)
    assert np.abs(found - LEVELS).max() < 0.04


@pytest.mark.parametrize("kind", [Tracker, Conformal])
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


def test_few_outcomes_tell_the_greatest_miss() -> None:
    told = Conformal(LEVELS)
    for outcome in (4.0, 9.0, 6.0):
        told.update(np.full(2, 4.0), outcome, MISSED)
    assert told.correct(np.full(2, 4.0)).tolist() == pytest.approx([9.0, 9.0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=60), st.floats(0, 1e4))
@pytest.mark.parametrize("kind", [Tracker, Conformal])
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
