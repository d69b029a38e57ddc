"""The Scaling page: what roles have and want, the open plan, those before it, the policy."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Change, Partition
from controlplane.scaling import policy
from controlplane.scaling.models import LaneLook, ScalingPlan
from tests.factories import make_deployment, make_node, make_partition, make_scaling_plan
from tests.web.conftest import Clients, text

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def patient(settings: Any) -> None:
    """A node that was heard when the test began stays so, however slow the machine is."""
    settings.SILENT_AFTER_S = 600.0


@pytest.fixture
def look(fleet: SimpleNamespace) -> LaneLook:
    return LaneLook.objects.create(
        deployment=fleet.deployment, role="decode", at=timezone.now(), count=1, ready=1, lost=1, wanted=2,
        kind="pressure", why="ITL p95 70 ms of 50 ms", short=1, rate_now=1.5, rate_coming=12.0,
        floor_why="too little is on record",
        other="Aggregated engines would do with 0.50 times the GPUs", other_ratio=0.5,
    )  # fmt: skip


def test_it_tells_what_roles_have_and_want_and_why(fleet: SimpleNamespace, look: LaneLook, as_role: Clients) -> None:
    page = text(as_role("viewer").get("/scaling/"))
    assert "pressure ITL p95 70 ms of 50 ms" in page
    assert "1 lost" in page and "1 short" in page and "1 engine without a partition" in page
    assert "Floor not known: too little is on record" in page
    assert "Aggregated engines would do with 0.50 times the GPUs. Compare" in page
    assert "1.5 → 12" in page
    assert "Plans are proposed each minute and applied by people." in page


def test_the_page_of_a_deployment_says_what_it_wants(fleet: SimpleNamespace, look: LaneLook, as_role: Clients) -> None:
    page = text(as_role("viewer").get(f"/deployments/{fleet.deployment.pk}/"))
    assert "2 decode engines , has 1, lost 1 , no partition for 1 pressure ITL p95 70 ms of 50 ms" in page


def test_the_open_plan_tells_its_reasons_what_it_does_and_why_it_waits(
    fleet: SimpleNamespace, look: LaneLook, as_role: Clients
) -> None:
    page = text(as_role("operator").get("/scaling/"))
    assert "chat decode 1 to 2: ITL p95 70 ms of 50 ms" in page
    assert "unassigned to D decode of chat" in page
    assert "1 → 2" in page
    assert "It waits for you. plans are applied by people: automatic applying is off" in page
    assert "Dismiss" in page
    assert "Dismiss" not in text(as_role("viewer").get("/scaling/"))


def test_a_plan_is_applied_with_a_reason_and_its_change_follows(fleet: SimpleNamespace, as_role: Clients) -> None:
    operator, url = as_role("operator"), f"/scaling/plans/{fleet.plan.pk}/apply"
    assert "Say why: it is kept with the plan." in text(operator.post(url, {"reason": " "}, follow=True))
    assert Change.objects.count() == 0
    answer = operator.post(url, {"reason": "it is late"})
    change = Change.objects.get()
    assert answer["Location"] == f"/changes/{change.pk}/"
    assert (change.reason, Partition.objects.get(pk=fleet.idle.pk).role) == ("it is late", "decode")
    assert f"Plan plan {fleet.plan.pk}" in text(operator.get(f"/changes/{change.pk}/"))
    page = text(operator.get("/scaling/"))
    assert f"applied change {change.pk} by operator" in page
    assert "applied scaling plan" in text(operator.get("/activity/"))
    assert "is applied. Nothing was changed." in text(operator.post(url, {"reason": "again"}, follow=True))


def test_a_plan_that_is_stale_says_who_was_faster(fleet: SimpleNamespace, as_role: Clients, actor: Actor) -> None:
    services.set_pool(fleet.idle.pk, pool=True, actor=actor)
    page = text(as_role("operator").post(f"/scaling/plans/{fleet.plan.pk}/apply", {"reason": "now"}, follow=True))
    assert "was faster" in page
    assert f"Plan {fleet.plan.pk}" in page


def test_a_plan_is_dismissed_and_its_page_tells_why(fleet: SimpleNamespace, as_role: Clients) -> None:
    operator, url = as_role("operator"), f"/scaling/plans/{fleet.plan.pk}/"
    page = text(operator.post(f"{url}dismiss", {"reason": "a test of ours"}, follow=True))
    assert "the same moves are not proposed for an hour" in page
    assert "a test of ours" in text(operator.get(url))
    assert operator.get("/scaling/plans/999/").status_code == 404


def test_superseded_plans_are_folded_away(fleet: SimpleNamespace, as_role: Clients) -> None:
    ScalingPlan.objects.update(state="superseded", decided_at=timezone.now(), decided_by="planner")
    viewer = as_role("viewer")
    page = text(viewer.get("/scaling/"))
    assert "With 1 superseded" in page and f"Plan {fleet.plan.pk}" not in page
    assert f"Plan {fleet.plan.pk}" in text(viewer.get("/scaling/?superseded=1"))


def test_a_plan_of_the_pool_alone_is_a_change_that_one_click_undoes(fleet: SimpleNamespace, as_role: Clients) -> None:
    row = {"partition": fleet.idle.pk, "name": str(fleet.idle), "pool": True, "why": "the pool shall hold 1 slots"}
    ScalingPlan.objects.update(moves=[], preview={}, pool=[row])
    operator = as_role("operator")
    assert "a slot of the pool the pool shall hold 1 slots" in text(operator.get("/scaling/"))
    answer = operator.post(f"/scaling/plans/{fleet.plan.pk}/apply", {"reason": "yes"})
    change = Change.objects.get()
    url = f"/changes/{change.pk}/"
    assert answer["Location"] == url
    page = text(operator.get(url))
    assert f"{fleet.idle} not of the pool a slot of the pool" in page
    assert "No engine moves with it." in page and "what runs there stays" in page
    assert f"{fleet.idle} into the pool" in text(operator.get("/changes/"))
    assert operator.get(f"{url}undo")["Location"] == url
    undone = operator.post(f"{url}undo", {"quick": "1"})
    assert undone["Location"] == f"/changes/{Change.objects.get(undoes=change).pk}/"
    assert not Partition.objects.get(pk=fleet.idle.pk).pool
    assert "was undone by change" in text(operator.post(f"{url}undo", {"quick": "1"}, follow=True))


def test_the_preview_of_an_undo_tells_what_goes_back_to_the_pool(fleet: SimpleNamespace, as_role: Clients) -> None:
    Partition.objects.filter(pk=fleet.idle.pk).update(pool=True)
    row = {"partition": fleet.idle.pk, "name": str(fleet.idle), "pool": False, "why": "chat is short"}
    ScalingPlan.objects.update(pool=[row])
    operator = as_role("operator")
    assert "with what it does to slots of the pool" in text(operator.get("/scaling/"))
    operator.post(f"/scaling/plans/{fleet.plan.pk}/apply", {"reason": "yes"})
    Change.objects.update(state=Change.State.DONE)
    url = f"/changes/{Change.objects.get().pk}/undo"
    assert f"{fleet.idle} becomes a slot of the pool with it." in text(operator.get(url))


def test_parts_are_sent_again_only_where_they_say_something_new(
    fleet: SimpleNamespace, look: LaneLook, as_role: Clients
) -> None:
    viewer = as_role("viewer")
    for part in ("now", "open"):
        key = viewer.get(f"/scaling/{part}").content.decode().split("?key=")[1].split('"')[0]
        assert viewer.get(f"/scaling/{part}?key={key}").status_code == 204
        ScalingPlan.objects.update(held_back=[f"seen by {part}"])
        LaneLook.objects.update(at=timezone.now() - timedelta(seconds=9))
        assert viewer.get(f"/scaling/{part}?key={key}").status_code == 200


def test_nothing_to_do_nobody_looking_and_nothing_to_look_at_are_told_apart(
    fleet: SimpleNamespace, look: LaneLook, as_role: Clients
) -> None:
    viewer = as_role("viewer")
    ScalingPlan.objects.all().delete()
    assert "Nothing is proposed Not every role has what it wants" in text(viewer.get("/scaling/"))
    LaneLook.objects.update(wanted=F("count"))
    assert "Nothing to do Every role has what it wants." in text(viewer.get("/scaling/"))
    LaneLook.objects.update(at=timezone.now() - timedelta(minutes=4))
    assert "Nobody has looked since" in text(viewer.get("/scaling/"))
    LaneLook.objects.all().delete()
    assert "Nobody has looked yet." in text(viewer.get("/scaling/"))
    Partition.objects.update(deployment=None, role="")
    assert "No engine yet" in text(viewer.get("/scaling/"))
    fleet.deployment.delete()
    assert "No dedicated deployment" in text(viewer.get("/scaling/"))


def test_the_policy_is_changed_in_its_form_and_the_change_is_undone(as_role: Clients) -> None:
    operator, url = as_role("operator"), "/scaling/policy"
    page = operator.get(url).content.decode()
    assert 'name="level" value="95.0"' in page and 'name="lengths_level" value="95.0"' in page
    form = {
        "auto_apply": "on", "moves_per_hour": 4, "most_gpus": "", "price_per_hour": "12.5",
        "time_zone": "Europe/Berlin", "quiet_hours": "mon-fri 9:00-12:00\nSun 0:00-24:00",
        "level": "90", "lengths_level": "99", "quiet_s": 300, "expected_version": 0,
    }  # fmt: skip
    answer = operator.post(url, form)
    row = policy.current()
    assert (answer.status_code, row.auto_apply, row.level, row.quiet_s) == (302, True, 0.9, 300)
    assert row.lengths_level == 0.99
    assert (row.quiet_hours, row.most_gpus, row.price_per_hour) == (
        ["Mon-Fri 9:00-12:00", "Sun 0:00-24:00"], None, 12.5,
    )  # fmt: skip
    page = operator.get("/scaling/").content.decode()
    assert "at most 4 partitions in an hour, up to 12.5 an hour, but not Mon-Fri 9:00-12:00" in page
    fields = page.split('action="/scaling/policy"')[1].split("</form>")[0]
    undo = dict(re.findall(r'name="(\w+)" value="([^"]*)"', fields))
    assert undo["reason"] == "undo: scaling policy" and "auto_apply" not in undo
    assert operator.post(url, form).status_code == 409
    form |= {"quiet_hours": "now and then", "expected_version": 1}
    assert operator.post(url, form).status_code == 422
    refused = operator.post(url, form | {"quiet_hours": "", "lengths_level": "99.9"})
    assert refused.status_code == 422 and "less than or equal to 99" in refused.content.decode()
    assert policy.current().version == 1
    assert operator.post(url, undo).status_code == 302
    assert (policy.current().auto_apply, policy.current().level, policy.current().quiet_hours) == (False, 0.95, [])


def test_a_plan_that_switches_the_kind_of_engines_says_from_which_to_which(as_role: Clients) -> None:
    deployment, free = make_deployment("chat"), make_partition(make_node())
    plan = make_scaling_plan(free, deployment, switches=True)
    effect = {"deployment": {"id": deployment.pk, "name": "chat"}, "gpus_before": 4, "gpus_after": 4, "in_flight": None}
    counts = {"prefill": (1, 0), "decode": (1, 0), "aggregated": (0, 1)}
    plan.preview["effects"] = [
        {**effect, "role": role, "engines_before": before, "engines_after": after}
        for role, (before, after) in counts.items()
    ]
    said = {"message": "This takes the last prefill replica of chat.", "fix": "Assign another partition to it first."}
    plan.preview["warnings"] = [{"code": "last-replica", **said}]
    plan.save()
    for address in (reverse("web:scaling"), reverse("web:scaling-plan", args=[plan.pk])):
        page = text(as_role("operator").get(address))
        assert "chat goes from prefill and decode engines to aggregated engines." in page
        assert "takes the last prefill replica" in page and "Assign another partition" not in page
    ScalingPlan.objects.update(switches=False)
    page = text(as_role("operator").get(reverse("web:scaling")))
    assert "goes from" not in page and "Assign another partition" in page
