"""A pool played by hand on small logs, and that what comes later changes nothing that was decided before."""

from __future__ import annotations

import numpy as np
import pytest

from bench._loop import Found, Played, Policy, Times, play
from bench.reserve import LEVELS, by_forecast, forecasts, past_of
from controlplane.domain.forecast.activity import Requests, runs

KEEP = 50.0
HOUR = 3600.0


def log(*calls: tuple[str, float]) -> Requests:
    """Of models a, b, c at these seconds."""
    return Requests.of(("a", "b", "c"), ["abc".index(name) for name, _ in calls], [at for _, at in calls])


def played(requests: Requests, wanted: list[int], *, empty: int | None = None, since: float = 0.0) -> Played:
    """A decision each 100 s, to 100 s after the last one."""
    moments = np.arange(len(wanted)) * 100.0
    policy = Policy(wanted.__getitem__, empty=empty)
    return play(runs(requests, KEEP), moments, policy, since=since, until=len(wanted) * 100.0)


def test_who_finds_a_held_slot_is_not_cold_and_who_finds_none_makes_the_pool_grow() -> None:
    found = played(log(("a", 10), ("b", 20), ("a", 110)), [1, 1])
    assert found.found == {Found.FREE: 2, Found.COLD: 1}
    assert found.cold == pytest.approx(1 / 3)
    assert found.slot_s == pytest.approx(200 + 40)  # two from b's coming to the end of a's keep-alive
    assert found.used_s == pytest.approx(3 * 50)


def test_nothing_held_is_keep_alive_alone_all_cold_and_held_is_what_is_used() -> None:
    found = played(log(("a", 10), ("b", 20), ("a", 110)), [0, 0])
    assert found.cold == 1.0
    assert found.slot_s == found.used_s == pytest.approx(150)


def test_a_lower_reserve_takes_no_slot_from_an_active_model() -> None:
    found = played(log(("a", 90), ("b", 95)), [2, 0])
    assert found.found == {Found.FREE: 2}
    assert found.slot_s == pytest.approx(2 * 100 + 40 + 45)


def test_slots_that_are_left_filled_are_found_by_those_who_return() -> None:
    calls = log(("a", 10), ("a", 150), ("b", 160))
    assert played(calls, [1, 1]).found == {Found.FREE: 2, Found.COLD: 1}
    assert played(calls, [1, 1], empty=0).found == {Found.FREE: 1, Found.RESIDENT: 1, Found.COLD: 1}


def test_of_the_filled_the_one_idle_longest_leaves_and_of_those_with_chances_the_least_likely() -> None:
    calls = log(("a", 0), ("b", 10), ("c", 100), ("a", 110))
    moments = np.array([0.0])
    by_age = Policy([2].__getitem__, empty=0)
    assert play(runs(calls, KEEP), moments, by_age, since=0, until=200).found[Found.RESIDENT] == 0
    by_chance = Policy([2].__getitem__, lambda _: np.array([0.9, 0.1, 0.5]), empty=0)
    assert play(runs(calls, KEEP), moments, by_chance, since=0, until=200).found[Found.RESIDENT] == 1


def test_some_kept_empty_leaves_the_others_filled() -> None:
    calls = log(("a", 0), ("b", 10), ("c", 100), ("b", 105))
    found = played(calls, [3, 3], empty=1).found
    assert found == {Found.FREE: 3, Found.RESIDENT: 1}
    assert played(calls, [2, 2], empty=1).found == {Found.FREE: 3, Found.RESIDENT: 1}


def test_only_what_happens_in_the_judged_time_counts() -> None:
    found = played(log(("a", 10), ("b", 20), ("a", 110)), [1, 1], since=100.0)
    assert found.found == {Found.FREE: 1}
    assert (found.slot_s, found.used_s) == (pytest.approx(100), pytest.approx(50))


def test_a_wait_is_what_lies_before_the_start_and_the_start() -> None:
    times = Times(start=5.0, leave=2.0, grow=30.0)
    found = Played()
    found.found.update({Found.RESIDENT: 1, Found.FREE: 1, Found.FILLED: 1, Found.COLD: 1})
    assert found.waits_s(times).tolist() == [0.0, 5.0, 7.0, 35.0]


def test_what_comes_later_changes_nothing_that_was_decided_before() -> None:
    random = np.random.default_rng(3)
    at = np.sort(random.uniform(0, 20 * HOUR, 300))
    model, names, cut = random.integers(0, 6, 300), tuple("abcdef"), 14 * HOUR
    later = at > cut
    moved = at.copy()
    moved[later] = cut + 1.0 + random.uniform(0, 6 * HOUR, int(later.sum()))
    decided = []
    for moments in (at, moved):
        history = past_of(Requests.of(names, model, moments))
        told = forecasts(history, "best")
        wanted, before = by_forecast(history, told, 0.01), int(np.sum(history.moments <= cut))
        policy = Policy(wanted)
        outcome = play(history.runs, history.moments, policy, since=0.0, until=cut)
        decided.append((told[:before].tolist(), [wanted(place) for place in range(before)], outcome.found))
    assert decided[0] == decided[1]
    assert len(decided[0][0][0]) == len(LEVELS)
    assert decided[0][2][Found.COLD], "nothing was decided wrongly: the log tells too little"
    assert not np.array_equal(at, moved)
