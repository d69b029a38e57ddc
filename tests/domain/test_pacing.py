"""How often agents may report."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.pacing import DOWN_AFTER_S, LATE_S, STEPS_S, UP_AFTER_S, Pace, next_pace

LOADS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 500)), max_size=200)


def after(seconds: float, pace: Pace, *, late_s: float = 0.0, waiting: int = 0, begin: float = 0.0) -> Pace:
    for second in range(int(seconds) + 1):
        pace = next_pace(pace, late_s=late_s, waiting=waiting, now=begin + second)
    return pace


def test_a_moment_of_strain_changes_nothing() -> None:
    assert after(UP_AFTER_S - 1, Pace(), late_s=1.0).step == 0


def test_lasting_strain_slows_agents_down_step_by_step_and_no_further() -> None:
    assert after(UP_AFTER_S, Pace(), late_s=1.0).step == 1
    assert after(2 * UP_AFTER_S, Pace(), waiting=1000).step == 2
    assert after(100 * UP_AFTER_S, Pace(), late_s=1.0).step == len(STEPS_S) - 1


def test_calm_lets_them_come_back_slowly() -> None:
    slow = after(100, Pace(), late_s=1.0)
    assert after(DOWN_AFTER_S - 1, slow, begin=200).step == slow.step
    assert after(DOWN_AFTER_S, slow, begin=200).step == slow.step - 1
    assert after(10 * DOWN_AFTER_S, slow, begin=200).step == 0


def test_between_strain_and_calm_all_stays_as_it_is() -> None:
    slow = after(UP_AFTER_S, Pace(), late_s=1.0)
    assert after(100, slow, late_s=LATE_S, begin=200).step == slow.step


@given(LOADS)
def test_one_look_changes_one_step_at_most(loads: list[tuple[float, int]]) -> None:
    pace = Pace()
    for second, (late_s, waiting) in enumerate(loads):
        following = next_pace(pace, late_s=late_s, waiting=waiting, now=float(second))
        assert abs(following.step - pace.step) <= 1
        assert 0 <= following.step < len(STEPS_S)
        pace = following


@given(st.integers(0, 3), st.floats(0.2, 60), st.floats(3, 600))
def test_no_pace_makes_a_node_silent(step: int, configured_s: float, silent_after_s: float) -> None:
    period_s = Pace(step).period_s(configured_s, silent_after_s)
    assert period_s >= configured_s
    assert period_s == configured_s or period_s <= silent_after_s / 3
