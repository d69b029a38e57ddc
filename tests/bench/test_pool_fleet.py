"""A few models on one simulated node: what the virtual clock, the agents and the stand-in gateway make of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bench._pool_run import Run
from bench.pool_fleet import EPOCH, SHIFT_S, copied
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import reports
from controlplane.fleet.models import Activation, Partition

HOUR = 3600.0


@pytest.fixture
def run(db: None, settings: Any) -> Run:
    """a comes each quarter of an hour, b and c once an hour and together; an hour is played after two on record."""
    reports.forget()
    settings.POOL_EMPTIED = 99  # nobody finds an engine where it was left
    at = [EPOCH - 2 * HOUR + 900.0 * turn + 7.3 for turn in range(12)]
    at += [EPOCH - 2 * HOUR + HOUR * turn + 1203.7 for turn in range(3)] * 2
    requests = Requests.of(("a", "b", "c"), [0] * 12 + [1] * 3 + [2] * 3, at)
    run = Run(requests, 1, 4, EPOCH, EPOCH + HOUR, 300.0, 1e9)
    run.play()
    return run


def test_everybody_is_served_once_in_a_time_that_starts_take_and_nothing_is_left(run: Run) -> None:
    found = run.found()
    assert found["activations"] == 6
    assert found["woken"] + found["woken_ahead"] >= found["activations"]
    assert found["failed"] == found["given_up"] == 0
    assert run.waits_s
    assert all(0.0 < wait < 12.0 for wait in run.waits_s), "a forked start takes 2.2 to 3 s, reports come each second"
    left = dict(run.left)
    for name in ("open_activations", "held_requests", "in_flight", "engines_nobody_wants", "pool_use_in_flight"):
        assert left[name] == 0, name
    assert left["slots_without_their_engine"] == 0
    assert left["pool_use_rows"] == 3


def test_gpu_hours_are_those_of_the_pool_and_no_slot_had_two_models_at_once(run: Run) -> None:
    assert 0 < run.slot_s <= 4 * HOUR
    assert run.most_slots <= 4
    by_slot: dict[int, list[tuple[object, object]]] = {}
    for row in Activation.objects.order_by("placed_at"):
        assert row.placed_at is not None
        assert row.ended_at is None or row.ended_at >= row.placed_at
        by_slot.setdefault(row.partition_id or 0, []).append((row.placed_at, row.ended_at))
    for spans in by_slot.values():
        assert all(second[0] >= first[1] for first, second in pairwise(spans) if first[1])
    assert Partition.objects.count() == 4


def test_copies_are_the_same_each_time_and_the_first_is_the_client_itself() -> None:
    clients = Requests.of(("x", "y"), [0, 1, 0], [10_000.0, 20_000.0, 30_000.0])
    once, again = copied(clients, 5), copied(clients, 5)
    assert len(once.models) == 5
    assert np.array_equal(once.at, again.at)
    assert sorted(once.at[once.model < 2]) == [10_000.0, 20_000.0, 30_000.0]
    others = once.at[once.model == 3]
    assert abs(others[0] - 20_000.0) <= SHIFT_S + 30.0
    assert others[0] != 20_000.0
