"""What roles want, plans and their policy from a terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.utils import timezone

from controlplane.fleet.models import Change, Partition
from controlplane.fleet.publish import publish
from controlplane.scaling.models import LaneLook, ScalingPlan
from tests.cli.conftest import Terminal
from tests.factories import make_deployment, make_node, make_partition, make_ready, make_scaling_plan

pytestmark = pytest.mark.django_db


@pytest.fixture
def plan(settings: Any) -> ScalingPlan:
    """Open: n1/p1 gets a second decode engine of `chat`."""
    settings.SILENT_AFTER_S = 600.0
    node, chat = make_node("n1"), make_deployment("chat")
    row = make_partition(node, deployment=chat, role="decode", name="p0")
    publish(node)
    make_ready(Partition.objects.get(pk=row.pk))
    LaneLook.objects.create(
        deployment=chat, role="decode", at=timezone.now(), count=1, ready=1, wanted=2, kind="pressure",
        why="ITL p95 70 ms of 50 ms", rate_now=1.5, rate_coming=2.25,
    )  # fmt: skip
    return make_scaling_plan(make_partition(node, name="p1"), chat, "decode")


def test_roles_and_the_open_plan_are_told_with_their_reasons(plan: ScalingPlan, operator: Terminal) -> None:
    shown = operator.ok("scaling")
    assert "pressure: ITL p95 70 ms of 50 ms" in shown and "2.25/s" in shown
    assert "n1/p1, unassigned -> chat as decode: chat decode 1 to 2: ITL p95 70 ms of 50 ms" in shown
    assert "chat decode: 1 -> 2 engines" in shown
    assert "It waits for a person: plans are applied by people" in shown
    assert operator.json("scaling")["lanes"][0]["wanted"] == 2


def test_the_open_plan_is_applied_and_says_how_to_take_it_back(plan: ScalingPlan, operator: Terminal) -> None:
    assert operator.run("scaling", "apply", said="n\n").exit_code != 0
    assert Change.objects.count() == 0
    told = operator.ok("scaling", "apply", "--yes", "--no-wait", "-m", "it is late")
    change = Change.objects.get()
    assert f"forebay changes {change.pk} --watch" in told and change.reason == "it is late"
    assert "No plan is open" in operator.run("scaling", "apply", "--yes").output
    again = operator.run("scaling", "apply", str(plan.pk), "--yes")
    assert (again.exit_code, "is applied. Nothing was changed." in again.output) == (1, True)
    assert "applied" in operator.ok("scaling", "plans")


def test_a_plan_is_dismissed(plan: ScalingPlan, operator: Terminal) -> None:
    assert "not proposed for an hour" in operator.ok("scaling", "dismiss", "-m", "a test of ours")
    assert "No such plans" in operator.ok("scaling", "plans", "--state", "open")
    assert operator.json("scaling", "plans", "--state", "dismissed")[0]["reason"] == "a test of ours"


def test_the_policy_is_looked_at_and_changed(operator: Terminal) -> None:
    assert "by people" in operator.ok("scaling", "policy")
    told = operator.ok(
        "scaling", "policy", "--auto", "--level", "90%", "--quiet", "5m", "--quiet-hours", "Mon-Fri 8:00-18:00",
        "--most-gpus", "16", "--lengths", "99%", "-m", "nights run alone",
    )  # fmt: skip
    assert re.search(r"sure of the lengths +95% +99%", told)
    assert "by itself, within these" in told and "Mon-Fri 8:00-18:00" in told and "300 s" in told
    told = operator.json("scaling", "policy", "--no-auto", "--most-gpus", "0", "--no-quiet-hours")
    assert (told["auto_apply"], told["most_gpus"], told["quiet_hours"], told["level"]) == (False, None, [], 0.9)
    assert operator.run("scaling", "policy", "--no-quiet-hours", "--quiet-hours", "Mon 1:00-2:00").exit_code == 2
    operator.sign_in("viewer")
    assert operator.run("scaling", "policy", "--auto").exit_code == 3
