"""What a reserve would have meant, judged by hand on small logs."""

from __future__ import annotations

import numpy as np
import pytest

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.backtest import Judge, at_equal_coverage, run
from controlplane.domain.forecast.blend import pinball
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import make

LEVELS = np.array([0.9])


def steps() -> History:
    """Ten windows of 100 s. a is active in the first 50 s of each; b too in the windows 2 and 7."""
    starts = np.append(np.arange(10) * 100.0, [200.0, 700.0])
    requests = Requests.of(("a", "b"), [0] * 10 + [1, 1], starts, starts + 40)
    return History(requests, 10.0, 100.0, 0.0, 1000.0, step_s=100.0)


def test_coverage_cold_starts_and_slots_are_counted_by_hand() -> None:
    history = steps()
    assert history.peaks.tolist() == [1, 1, 2, 1, 1, 1, 1, 2, 1, 1]
    score = Judge(history, LEVELS, 0.0).score("one slot", np.ones((10, 1)))
    assert score.coverage.tolist() == [0.8]
    assert score.cold == pytest.approx([2 / 12])  # two of a's and b's twelve activations made two active
    assert score.used == pytest.approx(0.6)  # twelve times 50 s of 1000
    assert score.held == pytest.approx([1.1])  # one slot always, a second for twice 50 s


def test_cold_activations_of_a_window_are_told_in_means_of_a_window() -> None:
    seen = steps().seen_at(9)
    mean = 11 / 9  # activations of the windows that are over
    assert seen.cold(2, np.array([0.0, 1.0, 2.0])) == pytest.approx([2 / mean, 1 / mean, 0])
    assert seen.cold(3, np.array([0.0, 1.0])) == pytest.approx([1 / mean, 0])


def test_bounds_static_has_no_cold_start_keep_alive_only_all_and_clairvoyant_none_at_the_least_reserve() -> None:
    static, reactive, clairvoyant = Judge(steps(), LEVELS, 0.0).bounds(10)
    assert (static.cold[0], static.reserve[0]) == (0, 2)
    assert (reactive.cold[0], reactive.held[0]) == (1, pytest.approx(0.6))
    assert (clairvoyant.cold[0], clairvoyant.reserve[0]) == (0, pytest.approx(1.2))


def test_only_windows_from_the_judged_day_on_count() -> None:
    assert Judge(steps(), LEVELS, 500.0).score("none", np.zeros((10, 1))).windows == 5


def test_a_window_that_is_not_over_is_not_judged() -> None:
    starts = np.arange(0.0, 1000.0, 100.0)
    history = History(Requests.of(("a",), np.zeros(10), starts), 10.0, 300.0, 0.0, 1000.0, step_s=100.0)
    outcome = run(history, make(("last",), (0.9,)), (0.9,), judge_from=0.0)
    assert outcome.scores[0].windows == 7


def test_equal_coverage_shifts_what_covers_too_much() -> None:
    outcome = np.arange(100.0)
    told = np.full((100, 1), 500.0)
    assert at_equal_coverage(told, outcome, LEVELS) == pytest.approx([90.0], abs=1)


def test_pinball_is_least_at_the_quantile() -> None:
    outcomes = np.random.default_rng(1).poisson(30, 4000).astype(float)
    told = np.arange(20.0, 50.0)
    losses = [pinball(np.full((4000, 1), one), outcomes, LEVELS).mean() for one in told]
    assert told[int(np.argmin(losses))] == pytest.approx(np.quantile(outcomes, 0.9), abs=1)
