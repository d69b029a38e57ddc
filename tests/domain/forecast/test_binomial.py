"""The law of the number of active models."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson_binom

from controlplane.domain.forecast.activity import Requests, runs
from controlplane.domain.forecast.binomial import law, of_maximum, quantile, rates

chances = st.lists(st.floats(0, 1), min_size=1, max_size=25)


@settings(max_examples=50, deadline=None)
@given(chances)
def test_the_law_is_the_poisson_binomial(found: list[float]) -> None:
    expected = poisson_binom(found).pmf(np.arange(len(found) + 1))
    np.testing.assert_allclose(law(found), expected, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(chances, st.integers(0, 2**16))
def test_models_of_several_gpus_are_counted_by_their_gpus(found: list[float], seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 5, len(found))
    result = law(found, sizes)
    assert abs(result.sum() - 1) < 1e-9
    assert abs(result @ np.arange(len(result)) - np.dot(found, sizes)) < 1e-6


def test_the_maximum_of_a_stationary_fleet_is_what_simulation_says() -> None:
    """200 on/off models with exponential times: alpha 1/4000 s, stay 400 s, horizon 600 s."""
    random, models, enter, stay, horizon = np.random.default_rng(3), 200, 1 / 4000, 400.0, 600.0
    chance = enter * stay / (1 + enter * stay)
    peaks = []
    for _ in range(600):
        on = int(random.binomial(models, chance))
        now, most = 0.0, on
        while True:
            up, down = (models - on) * enter, on / stay
            now += random.exponential(1 / (up + down))
            if now >= horizon:
                break
            on += 1 if random.random() < up / (up + down) else -1
            most = max(most, on)
        peaks.append(most)
    rise = of_maximum(law(np.full(models, chance)), models * enter * (1 - chance), horizon)
    told = quantile(rise, np.array([0.95, 0.99]))
    assert np.abs(told - np.quantile(peaks, [0.95, 0.99])).max() <= 2
    assert told[1] < 0.8 * models * (1 - np.exp(-enter * (horizon + stay)))  # what a union bound would hold


@settings(max_examples=40, deadline=None)
@given(chances, st.floats(0, 0.1), st.floats(1, 86_400))
def test_the_law_of_a_maximum_rises_to_one_and_falls_with_the_horizon(
    found: list[float], enter: float, horizon_s: float
) -> None:
    moment = law(found)
    short, long = of_maximum(moment, enter, horizon_s), of_maximum(moment, enter, 2 * horizon_s)
    assert (np.diff(short) >= 0).all() and short[-1] == 1
    assert (long <= short + 1e-12).all()
    assert (short <= np.cumsum(moment) + 1e-9)[:-1].all()


def test_rates_are_read_off_the_log() -> None:
    """One model, on for 100 s (40 s of requests and 60 s of keep-alive) of each of ten times a 1,000 s."""
    starts = np.arange(10) * 1000.0 + 100
    found = rates(runs(Requests.of(("a",), np.zeros(10), starts, starts + 40), 60), 10_000, 10_000)
    np.testing.assert_allclose(found.stay_s, [100])
    np.testing.assert_allclose(found.enter, [10 / 9000])
    np.testing.assert_allclose(found.chance, [0.1])
