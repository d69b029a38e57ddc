from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.telemetry.rates import GAP_S, History, known
from workers.contract import EngineSample


def tokens(total: float | None) -> EngineSample:
    return EngineSample(generation_tokens_total=total)


def history(*points: tuple[float, float | None], pid: int = 1) -> History:
    made = History()
    for at, total in points:
        made.add(at, pid, tokens(total))
    return made


def test_a_rate_is_growth_over_time() -> None:
    assert history((0, 100), (1, 110), (2, 140)).per_second("generation_tokens_total") == [20.0]


def test_one_sample_gives_no_rate() -> None:
    assert history((0, 100)).per_second("generation_tokens_total") == [None]


def test_the_rate_looks_back_five_seconds_only() -> None:
    made = history((0, 0), (1, 1000), (2, 1000), (3, 1000), (4, 1000), (5, 1000), (6, 1000), (7, 1000))
    assert made.per_second("generation_tokens_total") == [0.0]


def test_a_total_that_falls_begins_anew_and_never_gives_a_negative_rate() -> None:
    made = history((0, 500), (1, 600), (2, 7))
    assert made.per_second("generation_tokens_total") == [None]
    made.add(3, 1, tokens(17))
    assert made.per_second("generation_tokens_total") == [10.0]


def test_another_process_begins_anew_even_if_its_totals_are_higher() -> None:
    made = history((0, 5), (1, 6), pid=1)
    assert made.add(2, 2, tokens(900)) is None
    assert made.per_second("generation_tokens_total") == [None]


def test_a_long_silence_is_a_gap() -> None:
    made = history((0, 0))
    assert made.add(GAP_S + 1, 1, tokens(1000)) is None


def test_what_an_engine_does_not_tell_is_unknown() -> None:
    made = history((0, None), (1, None), (2, None))
    assert made.per_second("generation_tokens_total") == [None]
    assert made.per_second("prompt_tokens_total") == [None]


def test_latency_is_the_mean_of_what_finished() -> None:
    made = History()
    made.add(0, 1, EngineSample(ttft_sum_s=10.0, ttft_count=100))
    made.add(1, 1, EngineSample(ttft_sum_s=10.6, ttft_count=102))
    assert made.mean_ms("ttft_sum_s", "ttft_count") == pytest.approx(300.0)


def test_latency_is_unknown_when_nothing_finished() -> None:
    made = History()
    made.add(0, 1, EngineSample(ttft_sum_s=10.0, ttft_count=100))
    made.add(1, 1, EngineSample(ttft_sum_s=10.0, ttft_count=100))
    assert made.mean_ms("ttft_sum_s", "ttft_count") is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1e300, 2**64])
def test_what_no_database_can_hold_is_unknown(value: float | None) -> None:
    assert known(value) is None


def test_two_samples_at_one_moment_give_no_rate() -> None:
    assert history((1, 5), (1, 9)).per_second("generation_tokens_total") == [None]


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.one_of(st.none(), st.floats(0, 1e9)), st.integers(1, 2))))
def test_no_history_gives_a_negative_or_infinite_rate(steps: list[tuple[float, float | None, int]]) -> None:
    made, now = History(), 0.0
    for after, total, pid in steps:
        now += after
        made.add(now, pid, tokens(total))
        (rate,) = made.per_second("generation_tokens_total")
        assert rate is None or (rate >= 0 and math.isfinite(rate))
