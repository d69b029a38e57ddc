"""What is to be held by the GPUs that a model needs: a slot of two on one node is not two slots of one anywhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from rest_framework.test import APIClient

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.model_facts import from_config
from controlplane.fleet.models import Deployment, RegisteredModel
from controlplane.planning import keeping, outlook, policy, reserve, slot_sizes, standing
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.models import Forecast, Standing
from tests.api.conftest import *  # noqa: F403 - the callers of the REST tests
from tests.domain.configs import LLAMA_70B
from tests.domain.forecast.worlds import fleet
from tests.factories import make_deployment, make_model, make_node, make_partition
from tests.planning.test_policy import MONDAY, make_forecast

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
BYTES = 100_000_000_000
NIGHT = datetime(2026, 7, 6, 2, 35, tzinfo=UTC)  # 16 steps of ten minutes since midnight
SIZES = [
    {"gpus": 1, "models": 20, "assumed": 3, "active": 3, "values": [1, 2, 3, 4, 6, 7]},
    {"gpus": 2, "models": 10, "assumed": 0, "active": 4, "values": [0, 1, 1, 2, 3, 3]},
]


def large(name: str = "large", **columns: Any) -> Deployment:
    """Of 100 GB: two GPUs of 80 GiB hold it, one does not."""
    model: RegisteredModel = make_model(name)
    model.facts = from_config(LLAMA_70B, BYTES).to_dict()
    model.save()
    arguments = ["--max-model-len", "4096"]
    return make_deployment(name, model=model, engine_args=arguments, **({"mode": "pooled"} | columns))


def slots() -> None:
    node = make_node("n1")
    for gpus in (1, 1, 2, 4):
        make_partition(node, gpus=gpus, pool=True)


def test_a_model_has_the_gpus_of_the_smallest_slot_that_holds_it() -> None:
    slots()
    large()
    make_deployment("small", mode="pooled")
    make_deployment("own", mode="dedicated")
    found = slot_sizes.read()
    assert (found.slots, found.own) == ({"large": (2,), "small": (1,)}, {"own"})
    models = ("large", "own", "small", "stranger")
    assert found.split(models) == {1: {2: 1, 3: 1}, 2: {0: 1}}
    assert found.assumed(models[2:]) == 1
    assert found.split(("own", "small", "stranger")) == {}, "all of one GPU: nothing to tell apart"


def test_a_node_that_is_silent_or_cordoned_makes_no_model_smaller_or_larger() -> None:
    slots()
    large()
    node = slot_sizes.Partition.objects.first().node  # type: ignore[union-attr]
    node.schedulable, node.last_seen = False, MONDAY - timedelta(days=9)
    node.save()
    assert slot_sizes.read().slots == {"large": (2,)}


def test_slots_of_each_size_are_a_quantile_of_its_own_models_and_never_less_than_are_active() -> None:
    make_forecast(by_size=SIZES, values=[2, 3, 4, 5, 8, 9])
    wanted = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert wanted is not None
    assert (wanted.slots, wanted.sizes, wanted.assumed) == (11, {1: 7, 2: 4}, 3)
    policy.change(floors=["Mon 9:00-12:00 15"], time_zone="Europe/Berlin", actor=ACTOR)
    floored = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert floored is not None and (floored.slots, floored.sizes) == (15, {1: 11, 2: 4})


def test_less_risk_never_holds_fewer_of_any_size() -> None:
    make_forecast(by_size=SIZES)
    before = {1: 0, 2: 0}
    for risk in (0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4):
        policy.change(most_cold=risk, actor=ACTOR)
        wanted = reserve.wanted_by(policy.current(), MONDAY.timestamp())
        assert wanted is not None and all(wanted.sizes[gpus] >= before[gpus] for gpus in before)
        before = dict(wanted.sizes)
    assert before[1] > 7 and before[2] <= 10, "there are no more models"


def test_without_sizes_every_slot_is_of_one_gpu() -> None:
    make_forecast()
    wanted = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert wanted is not None and wanted.sizes == {1: 10}


def test_what_is_held_is_told_in_gpus_and_nodes() -> None:
    assert outlook.held(policy.current(), MONDAY.timestamp()) is None
    make_forecast(by_size=SIZES)
    bare = outlook.held(policy.current(), MONDAY.timestamp())
    assert bare is not None and (bare["gpus"], bare["nodes"], bare["node_gpus"]) == (15, None, None)
    slots()
    held = outlook.held(policy.current(), MONDAY.timestamp())
    assert held is not None and (held["nodes"], held["node_gpus"]) == (2, 8)
    assert held["sizes"] == [
        {"gpus": 1, "slots": 7, "there": 2}, {"gpus": 2, "slots": 4, "there": 1}, {"gpus": 4, "slots": 0, "there": 1},
    ]  # fmt: skip


def test_each_size_is_forecast_from_its_own_models_and_a_restart_says_the_same() -> None:
    slots()
    large("m3")
    make_deployment("m0", mode="pooled")
    make_deployment("m1", mode="dedicated")
    world, now = fleet(6, 1.0), NIGHT.timestamp()
    by = now - world.at.max()
    past = Requests.of(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=ACTOR, now=now)
    for _ in range(2):
        Forecast.objects.all().delete()
        Forecasting({600: Pace(600.0, 0), 3600: Pace(600.0, 0), 86_400: Pace(3600.0, 0)}).tick(now)
        rows = list(Forecast.objects.filter(horizon_s=600).order_by("at"))
        newest = rows[-1].by_size
        assert [(one["gpus"], one["models"], one["assumed"]) for one in newest] == [(1, 4, 3), (2, 1, 0)]
        told = np.array([one["values"] for row in rows for one in row.by_size if one["gpus"] == 2])
        assert len(told) == len(rows) == 16 and 1 <= told.max() <= 2, "there is one such model; another may come"
        assert len({str(row.by_size) for row in rows}) > 1
    for later in Forecast.objects.exclude(horizon_s=600):
        assert [(one["gpus"], one["models"]) for one in later.by_size] == [(1, 4), (2, 1)]
    told_now = outlook.outlook(outlook.Asked(600, now - 3600, now), now)
    assert told_now["newest"][0]["by_size"] == newest
    assert sum(one["slots"] * one["gpus"] for one in told_now["held"]["sizes"]) == told_now["held"]["gpus"]


def test_what_if_is_told_of_each_size_by_its_own_models(operator: APIClient) -> None:
    slots()
    large("m3")
    make_deployment("m0", mode="pooled")
    make_deployment("m1", mode="dedicated")
    world, now = fleet(6, 1.0), time.time()
    by = now - world.at.max()
    past = Requests.of(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=ACTOR, now=now)
    standing.refresh(now)
    for one in Standing.objects.all():
        small, two = one.by_size
        assert [(of["gpus"], of["models"], of["assumed"]) for of in (small, two)] == [(1, 4, 3), (2, 1, 0)]
        assert small["expected"] + two["expected"] < one.expected, "that with partitions of its own takes no slot"
        assert two["curve"][-1][:2] == [1, 0.0], "one such model needs one slot at most"
    told = operator.get("/api/v1/capacity").json()["standing"]
    assert [of["gpus"] for of in told[0]["by_size"]] == [1, 2]


def test_a_pair_takes_two_slots_and_is_counted_as_two_that_come_together(operator: APIClient) -> None:
    slots()
    large("m3", pool_shape="pair")
    make_deployment("m0", mode="pooled", pool_shape="pair")
    make_deployment("m1", mode="pooled")
    make_deployment("m2", mode="dedicated")
    found = slot_sizes.read()
    assert found.slots == {"m3": (2, 2), "m0": (1, 1), "m1": (1,)}
    assert found.split(("m0", "m1", "m3")) == {1: {0: 2, 1: 1}, 2: {2: 2}}
    world, now = fleet(6, 1.0), time.time()
    by = now - world.at.max()
    past = Requests.of(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=ACTOR, now=now)
    Forecasting({600: Pace(600.0, 0), 3600: Pace(600.0, 0), 86_400: Pace(3600.0, 0)}).tick(now)
    newest = Forecast.objects.filter(horizon_s=600).order_by("-at")[0].by_size
    assert [(one["gpus"], one["models"], one["slots"], one["assumed"]) for one in newest] == [
        (1, 4, 5, 2),
        (2, 1, 2, 0),
    ]
    large_values = newest[1]["values"]
    assert {value % 2 for value in large_values} == {0} and max(large_values) <= 4
    standing.refresh(now)
    one = Standing.objects.first()
    assert one is not None
    two = one.by_size[1]
    assert two["curve"][-1][:2] == [2, 0.0], "it needs both"
    assert 0.0 < two["expected"] <= 2.0
    told = operator.get("/api/v1/capacity").json()
    assert [of["slots"] for of in told["newest"][0]["by_size"]] == [5, 2]
