"""Capacity from a terminal."""

from __future__ import annotations

import time

import pytest

from controlplane.audit.services import Actor
from controlplane.cli.text import UNKNOWN
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import brake
from controlplane.planning import keeping, standing
from controlplane.planning.forecasting import Forecasting, Pace
from tests.cli.conftest import Terminal
from tests.domain.forecast.worlds import fleet
from tests.factories import make_node, make_partition
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
