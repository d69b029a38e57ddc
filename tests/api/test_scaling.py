"""What roles have and want, plans and the scaling policy over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.fleet import services
from controlplane.fleet.models import Change
from controlplane.scaling.models import LaneLook, ScalingPlan
from tests.api.conftest import World, problem_of
from tests.factories import make_scaling_plan

pytestmark = pytest.mark.django_db
API = "/api/v1/scaling"


@pytest.fixture(autouse=True)
def patient(settings: Any) -> None:
    """A node that was heard when the test began stays so, however slow the machine is."""
    settings.SILENT_AFTER_S = 600.0


@pytest.fixture
def look(world: World) -> LaneLook:
    return LaneLook.objects.create(
        deployment=world.deployment, role="aggregated", at=timezone.now(), count=1, ready=1, wanted=2, kind="pressure",
        why="ITL p95 70 ms of 50 ms", rate_now=1.5, rate_coming=2.25, floor_why="too little is on record",
        other="Disaggregated engines would take 1.50 times the GPUs", other_ratio=1.5, other_at=timezone.now(),
    )  # fmt: skip


def test_it_tells_what_each_role_has_and_wants_and_the_open_plan(
    world: World, look: LaneLook, viewer: APIClient
) -> None:
    found = viewer.get(API).json()
    [lane] = found["lanes"]
    assert (lane["deployment"]["name"], lane["role"], lane["count"], lane["wanted"]) == ("chat", "aggregated", 1, 2)
    assert (lane["kind"], lane["floor"], lane["rate_coming"]) == ("pressure", None, 2.25)
    assert (lane["other"], lane["other_ratio"]) == ("Disaggregated engines would take 1.50 times the GPUs", 1.5)
    assert found["late"] is False
    plan = found["plan"]
    assert (plan["id"], plan["state"], plan["held_back"][0][:5]) == (world.plan.pk, "open", "plans")
    [move] = plan["moves"]
    assert (move["partition"]["name"], move["before"]["deployment"]) == ("alpha/p1", None)
    assert (move["after"]["deployment"]["name"], move["after"]["role"]) == ("chat", "aggregated")
    assert plan["preview"]["effects"][0]["engines_after"] == 2


def test_a_look_that_is_long_ago_is_told_as_late(world: World, look: LaneLook, viewer: APIClient) -> None:
    LaneLook.objects.update(at=timezone.now() - timedelta(minutes=4))
    assert viewer.get(API).json()["late"] is True
    LaneLook.objects.all().delete()  # there are engines, so a look would have told of them
    found = viewer.get(API).json()
    assert (found["looked_at"], found["late"]) == (None, True)


def test_a_plan_is_applied_once_and_its_change_can_be_undone(world: World, operator: APIClient) -> None:
    url = f"{API}/plans/{world.plan.pk}"
    done = operator.post(f"{url}/apply", {"reason": "it is late"}, format="json").json()
    assert (done["state"], done["automatic"], done["reason"]) == ("applied", False, "it is late")
    assert Change.objects.get(pk=done["change"]).reason == "it is late"
    world.idle.refresh_from_db()
    assert world.idle.deployment == world.deployment
    again = problem_of(operator.post(f"{url}/apply", {}, format="json"), 409)
    assert "is applied. Nothing was changed." in again["detail"]
    assert AuditEvent.objects.filter(verb="apply", subject_type="scalingplan").count() == 1


def test_the_same_key_applies_once(world: World, operator: APIClient) -> None:
    url = f"{API}/plans/{world.plan.pk}/apply"
    first, again = (operator.post(url, {}, format="json", headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code, again.headers["Idempotent-Replayed"]) == (200, 200, "true")
    assert first.json()["change"] == again.json()["change"]


def test_a_plan_is_stale_once_somebody_changed_what_it_concerns(world: World, operator: APIClient, actor) -> None:
    services.set_pool(world.idle.pk, pool=True, actor=actor)
    told = problem_of(operator.post(f"{API}/plans/{world.plan.pk}/apply", {}, format="json"), 409)
    assert "was faster" in told["detail"]
    world.plan.refresh_from_db()
    assert world.plan.state == "open"


def test_plans_are_dismissed_and_listed_by_state(world: World, operator: APIClient) -> None:
    url = f"{API}/plans/{world.plan.pk}"
    done = operator.post(f"{url}/dismiss", {"reason": "a test of ours"}, format="json").json()
    assert (done["state"], done["change"], done["reason"]) == ("dismissed", None, "a test of ours")
    other = make_scaling_plan(world.idle, world.deployment)
    assert [row["id"] for row in operator.get(f"{API}/plans").json()["results"]] == [other.pk, world.plan.pk]
    [row] = operator.get(f"{API}/plans?state=dismissed").json()["results"]
    assert (row["id"], "preview" in row) == (world.plan.pk, False)
    assert operator.get(f"{API}/plans?state=unheard").status_code == 400
    problem_of(operator.post(f"{API}/plans/999/apply", {}, format="json"), 404)


def test_a_plan_of_the_pool_alone_has_no_preview(world: World, operator: APIClient) -> None:
    ScalingPlan.objects.update(
        moves=[],
        preview={},
        pool=[{"partition": world.idle.pk, "name": "alpha/p1", "pool": True, "why": "the pool shall hold 1 slots"}],
    )
    assert operator.get(f"{API}/plans/{world.plan.pk}").json()["preview"] is None
    done = operator.post(f"{API}/plans/{world.plan.pk}/apply", {}, format="json").json()
    assert (done["state"], done["change"]) == ("applied", Change.objects.get(plans=world.plan).pk)
    world.idle.refresh_from_db()
    assert world.idle.pool


def test_a_plan_of_the_pool_alone_is_undone_as_any_change(world: World, operator: APIClient) -> None:
    row = {"partition": world.idle.pk, "name": "alpha/p1", "pool": True, "why": "the pool shall hold 1 slots"}
    ScalingPlan.objects.update(moves=[], preview={}, pool=[row])
    change = operator.post(f"{API}/plans/{world.plan.pk}/apply", {}, format="json").json()["change"]
    url = f"/api/v1/changes/{change}"
    assert (operator.get(url).json()["state"], operator.get(url).json()["undoable"]) == ("done", True)
    seen = operator.post(f"{url}/undo?dry_run=true", {}, format="json").json()
    assert [one["message"] for one in seen["warnings"]] == [f"{world.idle} leaves the pool with it."]
    made = operator.post(f"{url}/undo", {"version": seen["version"], "reason": "not now"}, format="json")
    assert (made.status_code, made.json()["state"], made.json()["undoes"]) == (201, "done", change)
    world.idle.refresh_from_db()
    assert not world.idle.pool
    event = AuditEvent.objects.filter(verb="pool", subject_id=world.idle.pk).first()
    assert event is not None and (event.reason, event.after) == ("not now", {"pool": False})


def test_the_policy_is_changed_by_who_saw_it(operator: APIClient) -> None:
    url = f"{API}/policy"
    first = operator.get(url)
    assert (first.json()["auto_apply"], first.json()["version"], first.headers["ETag"]) == (False, 0, '"v0"')
    body = {"auto_apply": True, "quiet_hours": ["mon-fri 8:00-18:00"], "most_gpus": 4, "expected_version": 0}
    done = operator.patch(url, body, format="json").json()
    assert (done["auto_apply"], done["quiet_hours"], done["most_gpus"]) == (True, ["Mon-Fri 8:00-18:00"], 4)
    problem_of(operator.patch(url, body, format="json"), 409)
    answer = operator.patch(url, {"level": 0.9}, format="json", headers={"If-Match": '"v0"'})
    assert problem_of(answer, 412)["problems"][0]["code"] == "precondition-failed"
    assert operator.patch(url, {"level": 0.9}, format="json", headers={"If-Match": '"v1"'}).json()["version"] == 2
    last = operator.patch(url, {"lengths_level": 0.9}, format="json").json()
    assert (last["version"], last["lengths_level"], first.json()["lengths_level"]) == (3, 0.9, 0.95)


@pytest.mark.parametrize(
    "body",
    [
        {"level": 1.5},
        {"lengths_level": 0.4},
        {"quiet_s": 5},
        {"quiet_hours": ["now and then"]},
        {"time_zone": "Mars"},
        {"pool": 1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_in_words(operator: APIClient, body: dict) -> None:
    answer = operator.patch(f"{API}/policy", body, format="json")
    assert answer.status_code in {400, 422}
    assert answer.json()["problems"][0]["message"]
