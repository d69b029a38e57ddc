"""From a target to what is held ready: slots by size, GPUs, and the nodes on which they fit. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controlplane.domain.forecast.binomial import law
from controlplane.domain.knapsack import Floats, Loads, cold, least


@dataclass(frozen=True, slots=True)
class Risk:
    """At most so many of all activations are cold, 0..1."""

    most_cold: float


@dataclass(frozen=True, slots=True)
class Prices:
    """In one currency: what a cold activation costs, and an hour of a GPU that is held and idle."""

    cold: float
    idle_gpu_hour: float


@dataclass(frozen=True, slots=True)
class Held:
    """Of one size. `cold`: P(an activation finds no slot); `expected`: E[active]; `idle_gpus`: mean held, not used."""

    gpus: int  # that one slot has
    slots: int
    cold: float
    expected: float
    idle_gpus: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """`nodes`: the fewest of `node_gpus` each that hold the slots, none divided unless it is greater than a node.
    `shared_gpus`: what one pool for all sizes would need for the same share of cold activations, nodes aside."""

    held: tuple[Held, ...]
    gpus: int
    nodes: int
    node_gpus: int
    cold: float
    expected: float  # E[m], active models
    shared_gpus: int


def critical_level(miss: float, idle: float) -> float:
    """The quantile to hold where a miss costs `miss` and an idle slot `idle`, over the same time, both positive:
    q* = miss / (miss + idle)."""
    return miss / (miss + idle)


def reserve(loads: Loads, target: Risk | Prices, *, node_gpus: int) -> Reservation:
    """Each size has slots of its own, for a slot of four GPUs on one node is not four slots of one anywhere."""
    held = tuple(hold(loads.of_size(int(size)), target) for size in np.unique(loads.gpus))
    rates = [float(loads.of_size(one.gpus).activations_per_s.sum()) for one in held]
    total = sum(rates)
    share = sum(rate * one.cold for rate, one in zip(rates, held, strict=True)) / total if total > 0 else 0.0
    return Reservation(
        held=held,
        gpus=sum(one.gpus * one.slots for one in held),
        nodes=nodes({one.gpus: one.slots for one in held}, node_gpus),
        node_gpus=node_gpus,
        cold=share,
        expected=sum(one.expected for one in held),
        shared_gpus=least(loads, share + 1e-12),
    )


def hold(loads: Loads, target: Risk | Prices) -> Held:
    """Slots for models of one size."""
    size = int(loads.gpus[0])
    alike = Loads(loads.enter, loads.stay_s, np.ones_like(loads.gpus))
    slots = least(alike, target.most_cold) if isinstance(target, Risk) else cheapest(alike, target, size)
    active = law(alike.chance)
    idle = np.maximum(slots - np.arange(len(active)), 0)
    return Held(size, slots, cold(alike, slots), float(alike.chance.sum()), float(active @ idle) * size)


def cheapest(alike: Loads, prices: Prices, size: int) -> int:
    """The slots at which cold activations and idle GPUs cost least together, of all there can be. An activation is cold
    when it finds that many active or more; slots are of `size` GPUs."""
    active = law(alike.chance)
    slots = np.arange(len(active))
    rate_per_hour = float(alike.activations_per_s.sum()) * 3600.0
    full = 1.0 - np.concatenate([[0.0], np.cumsum(active)[:-1]])  # P(A >= r)
    idle = np.concatenate([[0.0], np.cumsum(np.cumsum(active))[:-1]])  # E[(r - A)+]
    cost = prices.cold * rate_per_hour * full + prices.idle_gpu_hour * size * idle
    return int(slots[np.argmin(cost)])


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


def curve(loads: Loads, most: int) -> Floats:
    """For a slider: of 0, 1, .. `most` GPUs of one shared pool, the share of cold activations. Shape (most + 1,)."""
    return np.array([cold(loads, capacity) for capacity in range(most + 1)])
