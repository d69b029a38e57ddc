"""Rules beside the forecasts; blocking against counting by hand and against simulation."""

from __future__ import annotations

import heapq
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.knapsack import Loads, blocking, cold
from controlplane.domain.reservation import aegaeon, critical_level, nodes


def loads_of(*models: tuple[float, float, int]) -> Loads:
    enter, stay, gpus = zip(*models, strict=True)
    return Loads(np.array(enter), np.array(stay), np.array(gpus))


def by_hand(loads: Loads, capacity: int, model: int) -> float:
    """Over all states of the others."""
    others = [place for place in range(len(loads.gpus)) if place != model]
    rho, sizes = loads.enter * loads.stay_s, loads.gpus
    inside = blocked = 0.0
    for state in product((0, 1), repeat=len(others)):
        on = [place for place, is_on in zip(others, state, strict=True) if is_on]
        used = sum(int(sizes[place]) for place in on)
        if used <= capacity:
            weight = prod(float(rho[place]) for place in on)
            inside += weight
            blocked += weight * (used + sizes[model] > capacity)
    return blocked / inside


models = st.lists(
    st.tuples(st.floats(1e-5, 0.01), st.floats(10, 5000), st.sampled_from([1, 2, 4])), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(models, st.integers(0, 16))
def test_blocking_is_what_all_states_counted_say(found: list[tuple[float, float, int]], capacity: int) -> None:
    loads = loads_of(*found)
    expected = [by_hand(loads, capacity, place) for place in range(len(found))]
    np.testing.assert_allclose(blocking(loads, capacity), expected, atol=1e-9)


def simulated(loads: Loads, capacity: int, activations: int) -> float:
    """Lognormal durations, which the formula does not know of."""
    random = np.random.default_rng(11)
    events = [(random.exponential(1 / enter), place, True) for place, enter in enumerate(loads.enter)]
    heapq.heapify(events)
    used = seen = turned_away = 0
    while seen < activations:
        now, place, wakes = heapq.heappop(events)
        size, gap = int(loads.gpus[place]), random.exponential(1 / loads.enter[place])
        if not wakes:
            used -= size
        elif used + size <= capacity:
            seen, used = seen + 1, used + size
            stay = random.lognormal(np.log(loads.stay_s[place]) - 0.5, 1.0)
            heapq.heappush(events, (now + stay, place, False))
            continue
        else:
            seen, turned_away = seen + 1, turned_away + 1
        heapq.heappush(events, (now + gap, place, True))
    return turned_away / seen


def test_blocking_of_a_shared_pool_is_what_simulation_says() -> None:
    random = np.random.default_rng(2)
    loads = Loads(random.lognormal(-7.5, 1, 30), random.lognormal(6, 0.5, 30), random.choice([1, 2, 4], 30))
    told = cold(loads, 16)
    assert 0.02 < told < 0.4
    assert simulated(loads, 16, 40_000) == pytest.approx(told, abs=0.01)


def test_expected_models_stand_beside_aegaeons_which_poisson_arrivals_make_equal() -> None:
    """One request every 1,000 s of each of 50 models, keep-alive 300 s: d = (e^(lambda T) - 1) / lambda."""
    rate, keep_alive = 1e-3, 300.0
    stay = np.expm1(rate * keep_alive) / rate
    loads = Loads(np.full(50, rate), np.full(50, stay), np.ones(50, np.int64))
    assert loads.chance.sum() == pytest.approx(aegaeon(np.full(50, rate), keep_alive))


@pytest.mark.parametrize(
    ("slots", "needed"), [({}, 0), ({1: 8}, 1), ({4: 3, 1: 4}, 2), ({8: 1, 2: 1}, 2), ({16: 1, 4: 1}, 3), ({3: 3}, 2)]
)
def test_slots_are_packed_by_node(slots: dict[int, int], needed: int) -> None:
    assert nodes(slots, 8) == needed


def test_prices_as_a_quantile() -> None:
    assert critical_level(19.0, 1.0) == 0.95


@settings(max_examples=40, deadline=None)
@given(models)
def test_more_room_leaves_fewer_activations_cold_where_all_are_of_one_size(
    found: list[tuple[float, float, int]],
) -> None:
    loads = loads_of(*((enter, stay, 1) for enter, stay, _ in found))
    shares = np.array([cold(loads, capacity) for capacity in range(int(loads.gpus.sum()) + 1)])
    assert shares[0] == pytest.approx(1.0) and shares[-1] == pytest.approx(0.0, abs=1e-9)
    assert (np.diff(shares) <= 1e-9).all()
