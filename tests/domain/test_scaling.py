from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.scaling import Kind, Lane, Load, Served, is_full, wanted
from workers.contract import Role

IDLE = Load(running=0.0, waiting=0.0, kv_usage=0.0)
BUSY = Load(running=20.0, waiting=0.0, kv_usage=0.8)
SLO = Served(slo_ttft_ms=1000.0, slo_itl_ms=50.0)
QUIET = 600.0


def lane(role: Role = Role.DECODE, count: int = 2, **more: object) -> Lane:
    return Lane(**{"role": role, "count": count, "ready": count, "load": BUSY} | more)  # type: ignore[arg-type]


def ask(one: Lane, served: Served = SLO, **more: bool) -> tuple[int, Kind]:
    told = wanted(one, served, quiet_s=QUIET, **more)
    return told.count, told.kind


def test_the_forecast_is_a_floor_though_nothing_is_known_of_the_engines() -> None:
    assert ask(lane(floor=4, floor_why="12 a second", load=Load())) == (4, Kind.FORECAST)


def test_what_is_not_known_changes_nothing() -> None:
    late = replace(SLO, itl_ms=500.0)
    assert ask(lane(load=Load(running=1.0)), late) == (2, Kind.HOLD)
    assert ask(lane(ready=1), late) == (2, Kind.HOLD)
    assert ask(lane(load=Load(), floor=1, quiet_s=9999.0)) == (2, Kind.HOLD)


def test_late_tokens_want_more_decode_and_a_late_first_one_more_prefill() -> None:
    slow = replace(SLO, itl_ms=70.0)
    assert ask(lane(), slow) == (3, Kind.PRESSURE)
    assert ask(lane(Role.PREFILL), slow)[1] is Kind.KEEP
    late = replace(SLO, ttft_ms=1400.0)
    assert ask(lane(Role.PREFILL), late) == (3, Kind.PRESSURE)
    assert ask(lane(Role.AGGREGATED), late) == (3, Kind.PRESSURE)
    assert ask(lane(), late)[1] is Kind.KEEP


def test_lost_engines_are_replaced_where_no_forecast_says_that_the_rest_will_do() -> None:
    assert ask(lane(count=1, lost=1)) == (2, Kind.LOST)
    assert ask(lane(count=0, ready=0, lost=1)) == (1, Kind.LOST)
    assert ask(lane(count=1, lost=1, floor=1))[0] == 1
    assert ask(lane(count=1, lost=1, floor=2)) == (2, Kind.FORECAST)


def test_it_at_most_doubles() -> None:
    assert ask(lane(), replace(SLO, itl_ms=9000.0)) == (4, Kind.PRESSURE)


def test_a_late_first_token_is_not_prefills_fault_where_decode_is_full() -> None:
    assert ask(lane(Role.PREFILL), replace(SLO, ttft_ms=5000.0), decode_full=True)[1] is Kind.KEEP
    assert is_full(Load(1.0, 3.0, 0.5))
    assert is_full(Load(1.0, 0.0, 0.95))
    assert not is_full(Load())


def test_a_queue_and_a_full_cache_are_pressure_without_any_objective() -> None:
    assert ask(lane(load=Load(20.0, 10.0, 0.5)), Served()) == (3, Kind.PRESSURE)
    assert ask(lane(load=Load(20.0, 0.0, 1.0)), Served()) == (3, Kind.PRESSURE)
    assert ask(lane(Role.PREFILL, load=Load(2.0, 10.0)), Served()) == (4, Kind.PRESSURE)


def test_one_goes_after_a_quiet_time_and_not_before() -> None:
    quiet = lane(load=Load(1.0, 0.0, 0.1), floor=1)
    fine = replace(SLO, itl_ms=10.0)
    told = wanted(quiet, fine, quiet_s=QUIET)
    assert (told.count, told.kind, told.fewer_would_do) == (2, Kind.KEEP, True)
    assert ask(replace(quiet, quiet_s=QUIET), fine) == (1, Kind.QUIET)


def test_what_a_burst_left_behind_goes_the_sooner_the_more_it_is() -> None:
    after = lane(Role.PREFILL, count=12, load=Load(0.0, 0.0), floor=7, floor_why="5 a second")
    fine = replace(SLO, ttft_ms=100.0)
    left = [ask(replace(after, quiet_s=seconds), fine)[0] for seconds in (119, 120, 150, 200, 300, 599, 600)]
    assert left == [12, 11, 10, 9, 8, 8, 7]
    told = wanted(replace(after, quiet_s=60.0), fine, quiet_s=QUIET)
    assert told.why == "7 would do, but only for 60 s of 120"


def test_by_measured_figures_alone_one_goes_at_a_time() -> None:
    after = lane(Role.PREFILL, count=12, load=Load(0.0, 0.0), quiet_s=300.0)
    fine = replace(SLO, ttft_ms=100.0)
    assert ask(after, fine) == (12, Kind.KEEP)
    assert ask(replace(after, quiet_s=QUIET), fine) == (11, Kind.QUIET)


@pytest.mark.parametrize(
    "busy",
    [
        {"floor": 2},
        {"least": 2},
        {"load": Load(1.0, 1.0, 0.1)},
        {"load": Load(1.0, 0.0, 0.4)},  # 0.8 on one
        {"count": 1, "ready": 1},
    ],
)
def test_none_goes_that_is_needed(busy: dict[str, object]) -> None:
    one = replace(lane(load=Load(1.0, 0.0, 0.1), floor=1, quiet_s=QUIET), **busy)
    assert ask(one, replace(SLO, itl_ms=10.0)) == (one.count, Kind.KEEP)


def test_bounds_are_kept_and_told() -> None:
    assert ask(lane(count=0, ready=0, least=1)) == (1, Kind.BOUND)
    told = wanted(lane(floor=9, floor_why="much", most=3), SLO, quiet_s=QUIET)
    assert (told.count, told.kind, told.why) == (3, Kind.BOUND, "its maximum is 3; without it 9: much")


figures = st.none() | st.floats(0, 1e4)
lanes = st.builds(
    Lane,
    role=st.sampled_from(Role),
    count=st.integers(0, 9),
    ready=st.integers(0, 9),
    least=st.integers(0, 5),
    most=st.none() | st.integers(0, 12),
    load=st.builds(Load, figures, figures, st.none() | st.floats(0, 1)),
    floor=st.none() | st.integers(0, 12),
    quiet_s=st.floats(0, 1e5),
)


served = st.builds(Served, figures, figures, st.none() | st.floats(1, 1e4), st.none() | st.floats(1, 1e4))


@given(lanes, served)
def test_it_never_goes_below_its_least_or_the_forecast(one: Lane, served: Served) -> None:
    told = wanted(one, served, quiet_s=QUIET).count
    most = max(one.most, one.least) if one.most is not None else 99
    assert told >= min(one.least, most)
    assert told <= max(most, one.least)
    assert told >= min(max(one.least, min(one.count, one.floor or 0)), most)


@given(lanes, served)
def test_at_most_one_goes_where_no_forecast_vouches_for_fewer_or_the_quiet_time_has_just_begun(
    one: Lane, served: Served
) -> None:
    most = max(one.most, one.least) if one.most is not None else 99
    assert wanted(replace(one, floor=None), served, quiet_s=QUIET).count >= min(one.count - 1, most)
    assert wanted(replace(one, quiet_s=0.0), served, quiet_s=QUIET).count >= min(one.count, most)


@given(lanes, served, st.floats(0, 2000))
def test_the_longer_it_is_quiet_the_fewer_are_left(one: Lane, served: Served, more_s: float) -> None:
    later = wanted(replace(one, quiet_s=one.quiet_s + more_s), served, quiet_s=QUIET)
    assert later.count <= wanted(one, served, quiet_s=QUIET).count
