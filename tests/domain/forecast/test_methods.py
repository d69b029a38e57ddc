"""Forecasts of the peak: without a look ahead, wide while little is known, steady where nothing was recorded."""

from __future__ import annotations

import numpy as np
import pytest

from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.backtest import run
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.forecast.history import UNKNOWN, History
from controlplane.domain.forecast.methods import NAMES, make
from controlplane.domain.forecast.montecarlo import MonteCarlo
from tests.domain.forecast.worlds import fleet, with_more

LEVELS = (0.5, 0.95, 0.99)
NO_BASE = ("best", "last", "montecarlo")


def told(requests: Requests, days: float, names: tuple[str, ...] = NAMES, **options: object) -> dict[str, Floats]:
    history = History(requests, 300.0, 600.0, 0.0, days * DAY_S, **options)  # type: ignore[arg-type]
    return run(history, make(names, LEVELS), LEVELS, judge_from=0.0).told


def test_no_method_looks_ahead_what_comes_later_changes_no_decision() -> None:
    """After the cut every request comes at another time, to another model; new ones come besides."""
    requests, cut = fleet(10, 1.8), 1.4 * DAY_S
    later = requests.at > cut
    random = np.random.default_rng(9)
    at, model = requests.at.copy(), requests.model.copy()
    at[later] = random.uniform(cut + 1, 1.8 * DAY_S, later.sum())
    model[later] = random.permutation(model[later])
    other = with_more(Requests.of(requests.models, model, at), 3, np.arange(cut + 5, 1.8 * DAY_S, 100.0))
    decided = int(cut // 600) + 1
    first, second = told(requests, 1.8), told(other, 1.8)
    for name, before in first.items():
        np.testing.assert_array_equal(before[:decided], second[name][:decided], err_msg=name)
    assert any((before != second[name]).any() for name, before in first.items())


def test_over_an_hour_too_nothing_is_known_of_a_window_but_what_has_passed() -> None:
    requests, cut = fleet(10, 1.2), DAY_S
    other = requests.within(0.0, cut)
    decided = int(cut // 600) + 1
    first, second = (
        run(History(one, 300.0, 3600.0, 0.0, 1.2 * DAY_S), make(("best", "last"), LEVELS), LEVELS, judge_from=0.0).told
        for one in (requests, other)
    )
    for name, before in first.items():
        np.testing.assert_array_equal(before[:decided], second[name][:decided], err_msg=name)


def test_the_same_history_and_seed_give_the_same_decisions() -> None:
    requests = fleet(10, 0.5)
    first, second = (told(requests, 0.5, ("best",)) for _ in range(2))
    np.testing.assert_array_equal(first["average of the best"], second["average of the best"])


def test_parts_are_read_off_the_plays_of_all_and_change_nothing_for_the_whole() -> None:
    requests = fleet(12, 1.5)
    places = tuple(np.array(one, np.int64) for one in (range(12), range(8), range(6, 12), ()))
    alone, whole = MonteCarlo(), MonteCarlo(parts=places)
    parts = [MonteCarlo(of=(whole, number)) for number in range(4)]
    mine = [requests.only(one) for one in places]
    histories = [History(one, 300.0, 600.0, 0.0, 1.5 * DAY_S) for one in (requests, *mine)]
    spread = 0.0
    for place in range(150, 200):
        seen, *of_parts = (one.seen_at(place) for one in histories)
        every = whole.peaks(seen)
        np.testing.assert_array_equal(every, alone.peaks(seen))
        found = [one.peaks(part) for one, part in zip(parts, of_parts, strict=True)]
        np.testing.assert_array_equal(found[0], every)
        assert (found[1] <= every).all() and (found[1] + found[2] >= every).all() and not found[3].any()
        spread += abs(found[1].mean() - MonteCarlo().peaks(of_parts[1]).mean())
    assert spread / 50 < 0.3, "as if they had been played alone"


def test_every_answer_is_finite_not_negative_and_rises_with_the_level() -> None:
    for name, answers in told(fleet(10, 1.5), 1.5).items():
        assert np.isfinite(answers).all() and (answers >= 0).all(), name
        assert (np.diff(answers, axis=1) >= -1e-9).all(), name


def test_the_default_covers_as_told_once_it_has_learned_and_holds_less_than_the_last_day_would() -> None:
    history = History(fleet(20, 3.0), 300.0, 600.0, 0.0, 3.0 * DAY_S)
    ours, day = run(history, make(("best", "empirical"), LEVELS), LEVELS, judge_from=1.5 * DAY_S).scores[:2]
    assert 0.92 <= ours.coverage[1] <= 0.99  # a reserve of few whole slots covers more than it is asked to
    assert ours.coverage[2] >= 0.975
    assert ours.equal_reserve[2] < 0.95 * day.equal_reserve[2]


def test_with_no_history_it_tells_what_is_active_and_widens_with_the_first_surprises() -> None:
    """Nothing for six hours, then twelve models within one window."""
    requests = Requests.of(tuple("abcdefghijkl"), np.arange(12), 6 * 3600.0 + 10 * np.arange(12), np.full(12, DAY_S))
    answers = told(requests, 0.6)["average of the best"]
    assert answers[0].tolist() == [0, 0, 0]
    after = answers[6 * 6 + 2]
    assert after[0] == pytest.approx(12) and after[2] > 13


@pytest.mark.parametrize("days", [0.0, 0.01, 0.2])
def test_little_history_never_fails(days: float) -> None:
    requests = fleet(3, 1.0).within(0.0, days * DAY_S)
    for answers in told(requests, 0.3).values():
        assert np.isfinite(answers).all()


def test_no_data_is_not_no_demand() -> None:
    """Four hours of the second day are lost; those who serve go on, and so does what is told of them."""
    whole = with_more(fleet(days=1.5), 20, np.arange(0.0, 1.5 * DAY_S, 60.0))
    gap = Outage(DAY_S, DAY_S + 4 * 3600.0)
    kept = (whole.at < gap.start) | (whole.at >= gap.end)
    lost = Requests.of(whole.models, whole.model[kept], whole.at[kept])
    known, unknown = told(lost, 1.5, NO_BASE, outages=(gap,)), told(lost, 1.5, ("last",))
    inside = slice(int(gap.start // 600) + 3, int(gap.end // 600))
    last = int(gap.start // 600)
    after = slice(int(gap.end // 600) + 1, int(gap.end // 600) + 12)
    for name in ("last value", "Monte Carlo, idle age", "average of the best"):
        level = known[name][last, 1]
        assert known[name][inside, 1].min() > 0.7 * level, name
        assert known[name][after, 1].min() > 0.4 * level, name
    assert unknown["last value"][inside, 0].min() < 1


def test_an_outage_is_not_judged_and_teaches_nothing() -> None:
    gap = Outage(DAY_S, DAY_S + 7200.0)
    history = History(fleet(days=2.0), 300.0, 600.0, 0.0, 2 * DAY_S, outages=(gap,))
    assert (history.peaks[144:156] == UNKNOWN).all() and history.peaks[143] != UNKNOWN
    (ours, *_) = run(history, make(("last",), LEVELS), LEVELS, judge_from=0.0).scores
    assert ours.windows == 2 * 144 - 1 - 12


def test_a_new_model_that_never_rests_is_held_from_its_first_window_on() -> None:
    requests = fleet(days=1.5, wakes_a_day=2.0)
    more = with_more(requests, 20, np.arange(DAY_S + 30, 1.5 * DAY_S, 60.0))
    place = int(DAY_S // 600)
    before, after = (told(one, 1.5, ("best",))["average of the best"] for one in (requests, more))
    np.testing.assert_array_equal(before[: place + 1], after[: place + 1])
    gained = (after - before)[place + 1 : place + 40, 0]
    assert 0.5 < gained.mean() < 2.0


def test_a_shock_that_wakes_all_at_once_is_covered_meanwhile_and_let_go_of_within_three_days() -> None:
    quiet = fleet(30, 3.5, wakes_a_day=3.0)
    names = np.arange(30)
    shock = Requests.of(
        quiet.models,
        np.append(quiet.model, names),
        np.append(quiet.at, np.full(30, 0.5 * DAY_S)),
        np.append(quiet.until, np.full(30, 0.5 * DAY_S + 3600.0)),
    )
    answers = told(shock, 3.5, ("best",))["average of the best"]
    calm = told(quiet, 3.5, ("best",))["average of the best"]
    during = int(0.5 * DAY_S // 600) + 1
    assert answers[during : during + 5, 1].min() >= 29
    assert answers[-144:, 1].mean() < calm[-144:, 1].mean() + 3


def test_a_longer_keep_alive_is_learned_from_the_same_requests() -> None:
    requests = fleet(days=1.0)
    short, long = (
        run(History(requests, seconds, 600.0, 0.0, DAY_S), make(("best",), LEVELS), LEVELS, judge_from=DAY_S / 2)
        for seconds in (60.0, 1200.0)
    )
    assert (long.history.peaks >= short.history.peaks).all()
    assert long.scores[0].reserve[1] > short.scores[0].reserve[1]
