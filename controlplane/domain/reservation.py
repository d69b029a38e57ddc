"""What a target is, and the rules beside the forecasts: a quantile of prices, nodes on which slots fit, E[m]. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controlplane.domain.knapsack import Floats


@dataclass(frozen=True, slots=True)
class Risk:
    """At most so many of all activations are cold, 0..1."""

    most_cold: float


@dataclass(frozen=True, slots=True)
class Prices:
    """In one currency: what a cold activation costs, and an hour of a GPU that is held and idle."""

    cold: float
    idle_gpu_hour: float


def critical_level(miss: float, idle: float) -> float:
    """The quantile to hold where a miss costs `miss` and an idle slot `idle`, over the same time, both positive:
    q* = miss / (miss + idle)."""
    return miss / (miss + idle)


def nodes(slots: Mapping[int, int], node_gpus: int) -> int:
    """First fit, the greatest first: the fewest where sizes divide each other, as powers of two do. A slot that is
    greater than a node has as many nodes as it takes for itself."""
    full, free = 0, [0] * (node_gpus + 1)  # free[k]: nodes with k GPUs left
    for size in sorted(slots, reverse=True):
        for _ in range(slots[size]):
            if size > node_gpus:
                full += -(-size // node_gpus)
                continue
            left = next((room for room in range(size, node_gpus + 1) if free[room]), None)
            if left is None:
                full, left = full + 1, node_gpus
            else:
                free[left] -= 1
            free[left - size] += 1
    return full


def aegaeon(per_s: Floats, keep_alive_s: float) -> float:
    """E[m] = sum (1 - e^(-lambda T)), of equal Poisson streams (Aegaeon, SOSP'25): for comparison only. `per_s`:
    requests a second by model."""
    return float(-np.expm1(-np.asarray(per_s) * keep_alive_s).sum())
