"""The pool from a terminal."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.fleet import verified
from controlplane.fleet.models import Activation, Partition, PoolAim, Sleeper
from controlplane.fleet.publish import publish
from controlplane.fleet.services.waking import Ask, wake
from tests.cli.conftest import Terminal
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db
AT = timezone.now()


def test_slots_are_added_looked_at_and_taken_back(operator: Terminal) -> None:
    assert "forebay pool add" in operator.ok("pool")
    node = make_node("n1")
    make_partition(node, name="p0")
    assert operator.ok("pool", "add", "n1/p0") == "n1/p0 is a slot of the pool now.\n"
    verified.beat("gw:1", "", timezone.now())
    partition = make_partition(node, deployment=make_deployment("there", mode="pooled"), role="aggregated", pool=True)
    publish(node)
    make_ready(Partition.objects.get(pk=partition.pk))
    make_deployment("rare", mode="pooled")
    wake({"rare": Ask(2)})
    shown = operator.ok("pool")
    assert "2 slots: 1 active, 1 starting" in shown
    assert "To hold: not known" in shown
    [line] = [line for line in shown.splitlines() if " active " in line and "there" in line]
    assert line.split()[2:4][1] in ("s", "min"), "since when it is active"
    PoolAim.objects.update_or_create(
        pk=1, defaults={"keep_alive_s": 300, "slots": 3, "by_gpus": {"1": 2, "2": 1}, "reason": "a floor", "at": AT}
    )
    assert "To hold: 3 (2 of 1, 1 of 2 GPUs), a floor. Free at least: 1." in operator.ok("pool")
    assert "n1/p0" in shown and "there" in shown and "the smallest free slot" in shown
    assert [slot["place"] for slot in operator.json("pool")["slots"]] == ["starting", "active"]
    operator.ok("pool", "remove", "n1/p0")
    Activation.objects.update(state="failed", message="no such weights", ended_at=timezone.now())
    assert "no such weights" in operator.ok("pool", "history", "--failed", "--deployment", "rare")
    assert "no such weights" not in operator.ok("pool", "history", "--deployment", "there")


def test_who_sleeps_where_is_told(operator: Terminal) -> None:
    slot = make_partition(make_node("n1"), name="p0", pool=True)
    assert "ASLEEP" not in operator.ok("pool")
    since = timezone.now() - timedelta(minutes=5)
    far = make_deployment("far", mode="pooled")
    Sleeper.objects.create(partition=slot, deployment=far, engine_key="k", left_at=since, asleep_since=since, level=2)
    [line] = [line for line in operator.ok("pool").splitlines() if line.startswith("far")]
    assert line.split()[:3] == ["far", "n1/p0", "2"] and "5 min" in line
