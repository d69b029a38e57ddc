"""Small fleets with known habits: each model wakes at random, more so by day, and stays busy for a while."""

from __future__ import annotations

import numpy as np

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S

EVERY_S = 30.0  # between the requests of a busy model


def fleet(
    models: int = 20, days: float = 3.0, *, seed: int = 1, wakes_a_day: float = 12.0, busy_s: float = 900.0
) -> Requests:
    random = np.random.default_rng(seed)
    model, at = [], []
    for place in range(models):
        pace = wakes_a_day * random.lognormal(0.0, 0.7)
        for start in np.sort(random.uniform(0, days * DAY_S, random.poisson(pace * days))):
            if random.random() < 0.5 + 0.5 * np.sin(2 * np.pi * start / DAY_S):
                moments = np.arange(start, start + random.exponential(busy_s) + 1.0, EVERY_S)
                model.append(np.full(len(moments), place))
                at.append(moments)
    names = tuple(f"m{place}" for place in range(models))
    return Requests.of(names, np.concatenate(model), np.concatenate(at))


def with_more(requests: Requests, model: int, at: np.ndarray) -> Requests:
    """With requests of a model, maybe a new one, besides."""
    names = (*requests.models, *(f"new{place}" for place in range(model + 1 - len(requests.models))))
    return Requests.of(
        names,
        np.append(requests.model, np.full(len(at), model)),
        np.append(requests.at, at),
        np.append(requests.until, at),
        np.append(requests.number, np.ones(len(at), np.int64)),
    )
