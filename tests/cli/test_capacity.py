"""Capacity from a terminal."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.cli.text import UNKNOWN
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import brake
from controlplane.gateway.models import DemandMinute
from controlplane.planning import keeping, policy, profiles, standing
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.models import Comparison, Forecast
from tests.cli.conftest import Terminal
from tests.domain.forecast.worlds import fleet
from tests.factories import make_deployment, make_model, make_node, make_partition
from tests.planning import profile_tables as tables
from tests.planning.test_comparing import result
from tests.planning.test_slot_sizes import large

pytestmark = pytest.mark.django_db


def test_what_is_active_and_to_be_held_is_told(operator: Terminal) -> None:
    assert "Nothing is on record yet" in operator.ok("capacity")
    world, now = fleet(8, 1.0), time.time()
    by = now - world.at.max()
    past = Requests(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=Actor.system("test"), now=now)
    Forecasting({600: Pace(600.0, 0)}).tick(now)
    standing.refresh(now)
    shown = operator.ok("capacity")
    assert "of 8 models active" in shown and "10 min" in shown and "E[m]" in shown and "SLOTS" in shown
    assert len(operator.json("capacity")["standing"]) == len(standing.KEEP_ALIVES_S)


def test_before_the_first_forecast_it_is_told_what_it_waits_for(operator: Terminal) -> None:
    assert "none is heard: manage.py gateway" in operator.ok("capacity")
    keeping.note_recorded(time.time())
    assert "The control worker, which makes it, is not heard" in operator.ok("capacity")
    brake.look()
    told = operator.ok("capacity")
    assert "No forecast yet; nothing was asked yet. The first comes in" in told and "import_activity" in told


def test_what_is_foreseen_of_each_size_is_told(operator: Terminal) -> None:
    node = make_node("n1")
    for gpus in (1, 2):
        make_partition(node, gpus=gpus, pool=True)
    large("m3")
    world, now = fleet(8, 1.0), time.time()
    by = now - world.at.max()
    past = Requests(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=Actor.system("test"), now=now)
    Forecasting({600: Pace(600.0, 0), 3600: Pace(3600.0, 0)}).tick(now)
    standing.refresh(now)
    lines = operator.ok("capacity").splitlines()
    (head,) = [place for place, line in enumerate(lines) if line.startswith("SLOTS OF")]
    assert lines[head].split() == ["SLOTS", "OF", "MODELS", "ACTIVE", "10", "min", "1", "h", "24", "h", "HOLD", "THERE"]
    one, two = lines[head + 1 : head + 3]
    assert one.split()[:3] == ["1", "GPU", "7"] and two.split()[:3] == ["2", "GPUs", "1"]
    assert UNKNOWN in one, "nothing is told of the day ahead yet"
    (least,) = [line for line in lines if line.split()[:1] == ["0.10%"]]
    assert least.endswith("1 of 2"), "one model of two GPUs needs one such slot"


def test_the_policy_is_tried_out_changed_and_told(operator: Terminal) -> None:
    assert "at most 0.01 of activations wait" in operator.ok("capacity", "policy")
    change = ("--risk", "2%", "--floor", "Mon-Sun 0:00-24:00 12", "--keep-alive", "10m", "-m", "more to come")
    tried = operator.ok("capacity", "policy", *change, "--dry-run")
    assert "0.02 of" in tried and "Nothing was changed" in tried
    assert operator.json("capacity", "policy")["version"] == 0
    assert "12: floor of the schedule, Mon-Sun 0:00-24:00 12" in operator.ok("capacity", "policy", *change)
    found = operator.json("capacity", "policy", "--prices", "2.5", "0.5", "--no-floors")
    assert (found["aim"], found["cold_price"], found["floors"], found["version"]) == ("prices", 0.5, [], 2)
    assert "is no floor" in operator.fails(2, "capacity", "policy", "--floor", "Mon")
    operator.fails(2, "capacity", "policy", "--risk", "1%", "--prices", "1", "1")


def test_what_holding_ready_came_to_is_told_by_day_and_in_money_once_there_is_a_price(operator: Terminal) -> None:
    assert "No window is over yet" in operator.ok("capacity", "spent")
    now = timezone.now()
    Forecast.objects.create(
        at=now, horizon_s=600, keep_alive_s=300, active=2, known_models=30, levels=[0.5, 0.99], values=[1, 10],
        method="best", recorded_s=1e6, peak=12,
    )  # fmt: skip
    shown = operator.ok("capacity", "spent", "--days", "2")
    [day, total] = [line.split() for line in shown.splitlines()[1:3]]
    assert day[1:5] == total[1:5] == ["1", "1", "2.0", "0.3"] and day[-1] == UNKNOWN
    assert "A GPU-hour has no price" in shown
    policy.change(gpu_hour_price=3.0, actor=Actor.system("test"))
    assert operator.ok("capacity", "spent").splitlines()[1].split()[-2:] == ["6.00", "5.00"]
    assert operator.json("capacity", "spent")["total"]["short"] == 1
    operator.fails(2, "capacity", "spent", "--days", "63")


def test_methods_compared_are_told(viewer: Terminal) -> None:
    assert "Nothing was compared yet" in viewer.ok("capacity", "comparisons")
    at = timezone.now()
    Comparison.objects.create(
        asked_at=at, asked_by="daily", ended_at=at, result=result(ar=20.0, best=19.0), keep_alive_s=300
    )
    shown = viewer.ok("capacity", "comparisons")
    assert "The method that forecasts: best." in shown and "400 windows" in shown
    assert {line.split()[0] for line in shown.splitlines()} >= {"METHOD", "ar", "best"}
    Comparison.objects.create(asked_at=at, asked_by="x", keep_alive_s=300, of=90)
    assert "A comparison is asked: 0 of 90." in viewer.ok("capacity", "comparisons")


def test_a_deployment_is_sized_and_what_cannot_be_is_said(viewer: Terminal) -> None:
    make_node("alpha", gpus=8)
    make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    rate = ("--rate", "2", "--isl", "500", "--osl", "50")
    assert "Nothing is known of how fast" in viewer.fails(1, "capacity", "sizing", "chat", *rate)
    table = tables.splitwise(gpu="h100")
    profiles.import_table(table, actor=Actor.system("test"), gpus={"h100": "Simulated H100 80GB"})
    shown = viewer.ok("capacity", "sizing", "chat", *rate)
    assert "chat: " in shown and "aggregated, best" in shown and "95.0% of them within 2000 ms" in shown
    [apart] = [line.split() for line in shown.splitlines() if line.startswith("disaggregated")]
    found = viewer.json("capacity", "sizing", "chat", *rate)["disaggregated"]
    assert f"{found['prefill_per_decode']:.2f}" in apart and str(found["gpus"]) == apart[1]


def test_where_no_hour_was_told_before_it_is_not_said_how_many_held(viewer: Terminal) -> None:
    make_node("alpha", gpus=8)
    make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    table = tables.splitwise(gpu="h100")
    profiles.import_table(table, actor=Actor.system("test"), gpus={"h100": "Simulated H100 80GB"})
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for back in range(1, 12):
        DemandMinute.objects.create(
            deployment="chat", minute=hour - timedelta(hours=back), arrivals=10, prompt_tokens=4000,
            completion_tokens=1000,
        )  # fmt: skip
    shown = viewer.ok("capacity", "sizing", "chat")
    assert "Mean prompts of the next hour: 400 at 50%" in shown
    assert "(as in the last hour; none was told before)" in shown
