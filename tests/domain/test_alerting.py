from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.alert_rules import KINDS
from controlplane.domain.alerting import FLAP_STEPS, Limits, State, Track, burn, hold_s, step

HOT = Limits(threshold=90.0, clear=85.0, for_s=60.0, clear_s=30.0)
LOW = Limits(threshold=10.0, clear=12.0, above=False)
values = st.one_of(st.none(), st.floats(0, 200))


def play(limits: Limits, *looks: tuple[float, float | None]) -> list[State | None]:
    track, states = None, []
    for now, value in looks:
        track = step(limits, track, value, now)
        states.append(track and track.state)
        if track and track.state is State.RESOLVED:
            track = None
    return states


def test_it_is_pending_for_its_duration_then_fires_and_ends_when_well_for_long_enough() -> None:
    looks = [(0, 95.0), (50, 95.0), (60, 95.0), (70, 80.0), (90, 80.0), (100, 80.0)]
    pending, firing = State.PENDING, State.FIRING
    assert play(HOT, *looks) == [pending, pending, firing, firing, firing, State.RESOLVED]


def test_what_was_well_before_its_time_leaves_nothing_behind() -> None:
    assert play(HOT, (0, 95.0), (30, 70.0), (70, 95.0)) == [State.PENDING, None, State.PENDING]


def test_between_clear_and_threshold_it_neither_begins_nor_ends() -> None:
    assert play(HOT, (0, 88.0)) == [None]
    assert play(HOT, (0, 95.0), (60, 95.0), (70, 88.0), (200, 88.0))[-1] is State.FIRING


def test_less_is_worse_where_the_rule_says_so() -> None:
    assert play(LOW, (0, 11.0), (10, 10.0), (20, 11.0), (30, 12.0), (60, 13.0)) == [
        None, State.FIRING, State.FIRING, State.FIRING, State.RESOLVED,
    ]  # fmt: skip


def test_a_relapse_begins_the_waiting_for_its_end_anew() -> None:
    assert play(HOT, (0, 95.0), (60, 95.0), (70, 80.0), (90, 95.0), (100, 80.0), (129, 80.0))[-1] is State.FIRING


def test_one_that_comes_and_goes_must_be_well_for_longer_each_time() -> None:
    assert [hold_s(HOT, flaps) for flaps in (0, 1, 2, FLAP_STEPS, 99)] == [30, 60, 120, 960, 960]
    track = Track(State.FIRING, 0.0, good_since=10.0, flaps=2)
    assert step(HOT, track, 80.0, 129.0).state is State.FIRING
    assert step(HOT, track, 80.0, 130.0).state is State.RESOLVED


@given(st.sampled_from([None, Track(State.PENDING, 0.0), Track(State.FIRING, 0.0, 5.0, 1)]), st.floats(0, 1e6))
def test_the_unknown_changes_nothing(track: Track | None, now: float) -> None:
    assert step(HOT, track, None, now) == track


@given(st.lists(st.tuples(st.floats(0.1, 100), values), max_size=40))
def test_nothing_ends_that_did_not_fire_and_nothing_fires_unseen_for_its_duration(
    looks: list[tuple[float, float | None]],
) -> None:
    now, track, bad_since = 0.0, None, None
    for pause, value in looks:
        now += pause
        before, track = track, step(HOT, track, value, now)
        if value is not None and value < HOT.threshold and (before is None or before.state is State.PENDING):
            bad_since = None
        elif value is not None and value >= HOT.threshold and bad_since is None:
            bad_since = now
        if track and track.state is State.FIRING and (before is None or before.state is not State.FIRING):
            assert bad_since is not None and now - bad_since >= HOT.for_s
        if track and track.state is State.RESOLVED:
            assert before is not None and before.state is State.FIRING
            track = bad_since = None


def test_a_budget_burns_by_its_share_and_not_by_too_few_requests() -> None:
    assert burn(3, 10, 0.05, least=10) == 6.0
    assert burn(9, 9, 0.05, least=10) is None
    assert burn(0, 0, 0.05, least=10) == 0.0


def test_each_rule_s_limits_let_what_fires_end() -> None:
    for kind in KINDS.values():
        limits = kind.limits(kind.threshold, kind.for_s)
        assert limits.is_bad(kind.threshold), kind.key
        assert limits.clear <= limits.threshold if kind.above else limits.clear >= limits.threshold, kind.key
