"""How long a model is worth keeping, by its own idle times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.keepalive import BETTER, LEAST, MOST, SHORTEST_S, START, learn

USUAL_S = 300.0
IDLE = st.lists(st.floats(1.0, 100_000.0), min_size=0, max_size=120)


def cost(idle_s: list[float], keep_alive_s: float, usual_s: float = USUAL_S) -> float:
    """Seconds of a slot, and of starts that somebody waits for, of idle times that not any keep-alive outlasts."""
    longer = (idle for idle in idle_s if idle > min(SHORTEST_S, usual_s))
    return sum(idle if idle <= keep_alive_s else keep_alive_s + START * usual_s for idle in longer)


def test_who_comes_each_eight_minutes_is_kept_for_a_little_longer_than_that() -> None:
    found = learn([480.0 + k for k in range(30)], usual_s=USUAL_S)
    assert found is not None
    assert 509 < found.keep_alive_s < 540
    assert found.why == "100% of its 30 longer idle times end within it, 0% within 300 s"


def test_who_comes_each_hour_is_let_go_as_soon_as_may_be() -> None:
    found = learn([3600.0] * 30, usual_s=USUAL_S)
    assert found is not None
    assert found.keep_alive_s == SHORTEST_S
    assert found.why == "0% of its 30 longer idle times end within it, 0% within 300 s"


def test_who_comes_in_bursts_an_hour_apart_is_kept_for_as_long_as_a_burst_has_gaps() -> None:
    found = learn([90.0] * 60 + [3600.0] * 20, usual_s=USUAL_S)
    assert found is not None
    assert 90 < found.keep_alive_s < 100


@pytest.mark.parametrize("count", [0, 1, LEAST - 1])
def test_a_few_idle_times_say_nothing(count: int) -> None:
    assert learn([3600.0] * count, usual_s=USUAL_S) is None


def test_where_it_would_be_hardly_better_the_usual_one_stays() -> None:
    assert learn([200.0 + k for k in range(60)] + [280.0] * 20, usual_s=USUAL_S) is None


def test_what_the_record_is_too_coarse_for_is_added() -> None:
    exact = learn([480.0] * 30, usual_s=USUAL_S)
    coarse = learn([480.0] * 30, usual_s=USUAL_S, resolution_s=60.0)
    assert exact is not None and coarse is not None
    assert coarse.keep_alive_s >= exact.keep_alive_s + 60.0


@given(IDLE, st.floats(30.0, 3600.0))
def test_it_is_bounded_by_the_usual_one_and_costs_less_than_it(idle_s: list[float], usual_s: float) -> None:
    found = learn(idle_s, usual_s=usual_s)
    if found is None:
        return
    assert len(idle_s) >= LEAST
    assert min(SHORTEST_S, usual_s) <= found.keep_alive_s <= MOST * usual_s + 1.0
    most = BETTER * cost(idle_s, usual_s, usual_s) + len(idle_s)  # it is given in whole seconds
    assert cost(idle_s, found.keep_alive_s, usual_s) <= most
    assert len(found.why) <= 255


@given(st.lists(st.floats(61.0, 1100.0), min_size=LEAST, max_size=60))
def test_no_other_one_within_the_bounds_costs_less(idle_s: list[float]) -> None:
    found = learn(idle_s, usual_s=USUAL_S)
    chosen = USUAL_S if found is None else found.keep_alive_s
    best = min(cost(idle_s, float(other)) for other in np.linspace(SHORTEST_S, MOST * USUAL_S, 200))
    room = 1.0 if found is not None else 1.0 / BETTER
    assert cost(idle_s, chosen) <= room * best + 0.05 * sum(idle_s) + len(idle_s)


@given(IDLE, st.integers(0, 1000))
def test_the_order_of_idle_times_does_not_matter(idle_s: list[float], seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(idle_s).tolist()
    assert learn(mixed, usual_s=USUAL_S) == learn(idle_s, usual_s=USUAL_S)
