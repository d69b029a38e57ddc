from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.telemetry.columns import known, matrix, plain
from controlplane.telemetry.rates import FLOW_S, FLOWS, GAP_S, LATENCIES, LATENCY_S, TOTALS, Growth, Histories

TOTAL = "generation_tokens_total"


def add(histories: Histories, at: float, engines: dict[int, tuple[int, dict[str, float | None]]]) -> Growth:
    """`engines`: by slot the process and its totals."""
    rows = [[totals.get(name) for name in TOTALS] for _, totals in engines.values()]
    slots, pids = np.array(list(engines), np.intp), [pid for pid, _ in engines.values()]
    return histories.add(slots, np.full(len(slots), at), pids, matrix(rows, len(TOTALS)))


class History:
    """One engine, and what was said of it last."""

    def __init__(self) -> None:
        self._histories = Histories()
        self._histories.open(0)

    def add(self, at: float, pid: int = 1, **totals: float | None) -> float | None:
        """Over how long its totals grew."""
        self._growth = add(self._histories, at, {0: (pid, totals)})
        return plain(self._growth.elapsed_s[:, None])[0][0]  # type: ignore[no-any-return]

    def per_second(self, total: str = TOTAL) -> float | None:
        return plain(self._growth.per_second)[0][FLOWS.index(total)]  # type: ignore[no-any-return]

    def mean_ms(self, *pair: str) -> float | None:
        return plain(self._growth.mean_ms)[0][LATENCIES.index(pair)]  # type: ignore[arg-type, no-any-return]


def history(*points: tuple[float, float | None]) -> History:
    made = History()
    for at, total in points:
        made.add(at, generation_tokens_total=total)
    return made


def test_a_rate_is_growth_over_time() -> None:
    assert history((0, 100), (1, 110), (2, 140)).per_second() == 20.0


def test_one_sample_gives_no_rate() -> None:
    assert history((0, 100)).per_second() is None


def test_the_rate_looks_back_five_seconds_only() -> None:
    made = history((0, 0), (1, 1000), (2, 1000), (3, 1000), (4, 1000), (5, 1000), (6, 1000), (7, 1000))
    assert made.per_second() == 0.0


@pytest.mark.parametrize("every_s", [0.1, 1.0, 7.0])
def test_a_look_back_is_as_long_however_often_reports_come(every_s: float) -> None:
    made = History()
    for step in range(round(200 / every_s)):
        now = step * every_s
        made.add(now, prompt_tokens_total=now**2, ttft_sum_s=now**2, ttft_count=now)
    flow_s = now - math.sqrt(now**2 - (made.per_second("prompt_tokens_total") or 0.0) * FLOW_S)  # about
    assert flow_s == pytest.approx(FLOW_S, abs=max(0.4, every_s / 2))
    latency_s = 2 * now - (made.mean_ms("ttft_sum_s", "ttft_count") or 0.0) / 1000  # the mean of n² is 2n less its span
    assert LATENCY_S <= latency_s <= LATENCY_S + max(2.0, every_s)


def test_a_total_that_falls_begins_anew_and_never_gives_a_negative_rate() -> None:
    made = history((0, 500), (1, 600), (2, 7))
    assert made.per_second() is None
    made.add(3, generation_tokens_total=17)
    assert made.per_second() == 10.0


def test_another_process_begins_anew_even_if_its_totals_are_higher() -> None:
    made = history((0, 5), (1, 6))
    assert made.add(2, pid=2, generation_tokens_total=900) is None
    assert made.per_second() is None


def test_a_long_silence_is_a_gap() -> None:
    assert history((0, 0)).add(GAP_S + 1, generation_tokens_total=1000) is None


def test_what_an_engine_does_not_tell_is_unknown() -> None:
    made = history((0, None), (1, None), (2, None))
    assert made.per_second() is None
    assert made.per_second("prompt_tokens_total") is None


def test_latency_is_the_mean_of_what_finished() -> None:
    made = History()
    made.add(0, ttft_sum_s=10.0, ttft_count=100)
    made.add(1, ttft_sum_s=10.6, ttft_count=102)
    assert made.mean_ms("ttft_sum_s", "ttft_count") == pytest.approx(300.0)


def test_latency_is_unknown_when_nothing_finished() -> None:
    made = History()
    made.add(0, ttft_sum_s=10.0, ttft_count=100)
    made.add(1, ttft_sum_s=10.0, ttft_count=100)
    assert made.mean_ms("ttft_sum_s", "ttft_count") is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1e300, 2**64, 10**400])
def test_what_no_database_can_hold_is_unknown(value: float | None) -> None:
    assert known(value) is None
    assert plain(matrix([(value, 1.0)], 2)) == [[None, 1.0]]


def test_two_samples_at_one_moment_give_no_rate() -> None:
    assert history((1, 5), (1, 9)).per_second() is None


def test_a_slot_that_is_opened_again_knows_nothing_of_the_engine_before() -> None:
    histories = Histories()
    histories.open(3)
    add(histories, 0.0, {3: (1, {TOTAL: 5.0})})
    histories.open(3)
    growth = add(histories, 1.0, {3: (1, {TOTAL: 9.0})})
    assert np.isnan(growth.elapsed_s[0]) and np.isnan(growth.per_second).all()


steps = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.dictionaries(
            st.integers(0, 2), st.tuples(st.integers(1, 2), st.one_of(st.none(), st.integers(0, 1000))), min_size=1
        ),
    ),
    max_size=15,
)


@given(steps)
def test_engines_that_are_added_together_are_as_each_would_be_alone(
    steps: list[tuple[int, dict[int, tuple[int, int | None]]]],
) -> None:
    """By the plain definition: of the points since the last gap the newest that is old enough, else the oldest."""
    histories, now = Histories(), 0.0
    points: dict[int, list[tuple[float, float | None]]] = {}
    pids: dict[int, int] = {}
    highest: dict[int, float] = {}
    for slot in range(3):
        histories.open(slot)
    for after, told in steps:
        now += after
        growth = add(histories, now, {slot: (pid, {TOTAL: total}) for slot, (pid, total) in told.items()})
        by, rates = growth.by[:, TOTALS.index(TOTAL)].tolist(), growth.per_second[:, FLOWS.index(TOTAL)].tolist()
        for row, (slot, (pid, total)) in enumerate(told.items()):
            seen = points.setdefault(slot, [])
            fell = total is not None and total < highest.get(slot, 0.0)
            if seen and (pids[slot] != pid or now - seen[-1][0] > GAP_S or fell):
                seen.clear()
                highest.pop(slot, None)
            last = seen[-1] if seen else None
            seen.append((now, total))
            pids[slot], highest[slot] = pid, highest.get(slot, 0.0) if total is None else total
            assert by[row] == pytest.approx(_grown(last, seen[-1]), nan_ok=True)
            old = [point for point in seen if now - point[0] >= FLOW_S]
            since = old[-1] if old else seen[0]
            expected = _grown(since, seen[-1]) / (now - since[0] or math.nan)
            assert rates[row] == pytest.approx(expected, nan_ok=True)


def _grown(before: tuple[float, float | None] | None, after: tuple[float, float | None]) -> float:
    """NaN where there is no telling."""
    if before is None or before[1] is None or after[1] is None or after[0] == before[0]:
        return math.nan
    return after[1] - before[1]
