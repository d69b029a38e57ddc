"""The capacity policy: what it says, who may change it and how, and what is held by it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import Conflict, Invalid
from controlplane.gateway.models import DemandMinute
from controlplane.planning import policy, reserve
from controlplane.planning.forecasting import LEVELS
from controlplane.planning.models import CapacityPolicy, Forecast, Standing
from controlplane.planning.weighing import weigh
from controlplane.teams.services import change_team, create_team
from tests.api.conftest import *  # noqa: F403 - the callers of the REST tests
from tests.api.conftest import problem_of
from tests.factories import make_deployment, make_user

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
ADDRESS = "/api/v1/capacity/policy"
MONDAY = datetime(2026, 7, 6, 8, tzinfo=UTC)  # 10:00 in Berlin


def make_forecast(at: datetime = MONDAY, **columns: Any) -> Forecast:
    values = {"levels": list(LEVELS), "values": [2, 3, 4, 5, 8, 10], "active": 4, "known_models": 30}
    fixed = {"horizon_s": 600, "keep_alive_s": 300, "method": "best", "recorded_s": 1e6}
    return Forecast.objects.create(at=at, **(fixed | values | columns))


def make_standing(keep_alive_s: int, scale: float = 1.0, **columns: Any) -> Standing:
    curve = [[scale * slots, cold, scale * slots / 3] for slots, cold in ((4, 0.2), (8, 0.02), (12, 0.002), (16, 5e-5))]
    return Standing.objects.create(
        keep_alive_s=keep_alive_s, at=MONDAY, days=7.0, models_seen=30, expected=3.0, aegaeon=4.0,
        activations_per_hour=20.0, curve=curve, **columns,
    )  # fmt: skip


def of_size(gpus: int, share: float) -> dict[str, Any]:
    curve = [[share * slots, cold, share * slots / 3] for slots, cold in ((4, 0.2), (8, 0.02), (12, 0.002))]
    of = {"gpus": gpus, "models": 9, "assumed": 0, "expected": 1.0}
    return {**of, "activations_per_hour": 20 * share, "curve": curve}


def wanted(at: datetime = MONDAY) -> Any:
    found = reserve.wanted_by(policy.current(), at.timestamp())
    return None if found is None else (found.slots, found.why)


def test_until_it_is_changed_the_environment_decides(settings: Any) -> None:
    settings.CAPACITY_KEEP_ALIVE_S, settings.CAPACITY_MOST_COLD = 120, 0.05
    row = policy.current()
    assert (row.keep_alive_s, row.most_cold, row.version, CapacityPolicy.objects.count()) == (120, 0.05, 0, 0)
    policy.change(gpu_hour_price=2.0, actor=ACTOR)
    settings.CAPACITY_KEEP_ALIVE_S = 999
    assert (policy.current().keep_alive_s, policy.current().version) == (120, 1)


def test_a_change_is_on_record_and_one_that_changes_nothing_is_not() -> None:
    policy.change(floors=["Monday 9:00-12:00 hold 12 slots"], reason="the weekly report", actor=ACTOR)
    event = AuditEvent.objects.get(subject_type="capacitypolicy")
    assert (event.before["floors"], event.after["floors"]) == ([], ["Mon 9:00-12:00 12"])
    assert event.reason == "the weekly report"
    policy.change(floors=["Mon 9:00-12:00 12"], actor=ACTOR)
    assert (AuditEvent.objects.count(), policy.current().version) == (1, 1)


def test_who_saw_an_older_one_changes_nothing_and_learns_who_was_faster() -> None:
    policy.change(most_cold=0.02, expected_version=0, actor=ACTOR)
    with pytest.raises(Conflict, match=r"test changed it at .* version 1 now\. Nothing was changed"):
        policy.change(most_cold=0.03, expected_version=0, actor=ACTOR)
    assert policy.current().most_cold == 0.02


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"keep_alive_s": 1}, "keep-alive"), ({"most_cold": 0.0}, "most-cold"),
        ({"most_cold": float("nan")}, "most-cold"), ({"gpu_hour_price": -1.0}, "price"),
        ({"cold_price": float("inf")}, "price"), ({"aim": "prices"}, "prices-missing"), ({"aim": "luck"}, "aim"),
        ({"time_zone": "Berlin"}, "time-zone"), ({"floors": ["Mon 9-12"]}, "floor"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_whole(values: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid, match="Nothing was changed") as refused:
        policy.change(**values, reason="x", actor=ACTOR)
    assert [one.code for one in refused.value.problems] == [code]
    assert policy.current().version == 0 and not AuditEvent.objects.exists()


def test_without_a_forecast_nothing_is_known_and_a_floor_counts_all_the_same() -> None:
    assert wanted() is None
    policy.change(floors=["Mon 9:00-12:00 12"], time_zone="Europe/Berlin", actor=ACTOR)
    assert wanted() == (12, "floor of the schedule, Mon 9:00-12:00 12; nothing is forecast yet")
    assert wanted(MONDAY + timedelta(hours=3)) is None


def test_the_forecast_sets_what_is_held_and_the_floor_is_never_gone_below() -> None:
    make_forecast()
    assert wanted() == (10, "99% sure for the next 10 min, by at most 1% of activations waiting")
    policy.change(most_cold=0.05, actor=ACTOR)
    assert wanted()[0] == 8
    policy.change(most_cold=1e-4, actor=ACTOR)
    assert 10 < wanted()[0] <= 30, "beyond what was told a line goes on"
    policy.change(floors=["Mon 9:00-12:00 25"], time_zone="Europe/Berlin", most_cold=0.05, actor=ACTOR)
    assert wanted() == (25, "floor of the schedule, Mon 9:00-12:00 25; the forecast alone asks for 8")
    assert wanted(MONDAY + timedelta(hours=3)) is None, "the forecast is old by then: hold"
    make_forecast(MONDAY + timedelta(hours=3))
    assert wanted(MONDAY + timedelta(hours=3))[0] == 8


def test_no_fewer_gpus_are_held_than_floors_of_teams_come_to() -> None:
    team = create_team(name="search", pool_floor=3, actor=ACTOR)
    assert wanted() is None, "what is held is held on"
    make_forecast()
    assert wanted()[0] == 10
    change_team(team.pk, pool_floor=12, actor=ACTOR)
    slots, why = wanted()
    assert slots == 12 and why.startswith("floors of teams, 12 GPUs; without them 10: 99% sure")
    found = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert found is not None and found.sizes == {1: 12}


def test_an_old_forecast_is_no_reason_to_hold_less_than_it_asked_for() -> None:
    make_forecast(MONDAY - timedelta(hours=2))
    assert wanted() is None
    policy.change(floors=["Mon 9:00-12:00 3"], time_zone="Europe/Berlin", actor=ACTOR)
    assert wanted()[0] == 10 and "no newer one" in wanted()[1]


def test_prices_hold_more_the_dearer_a_wait_is() -> None:
    make_forecast()
    held = []
    for price in (0.01, 1.0, 100.0):
        policy.change(aim="prices", gpu_hour_price=3.0, cold_price=price, actor=ACTOR)
        held.append(wanted()[0])
    assert held == sorted(held) and held[0] < held[-1] and held[0] >= 4, "never less than is active"
    assert "least cost" in wanted()[1]


def test_the_more_gpus_a_slot_has_the_dearer_it_is_to_hold_and_the_less_sure_it_is_held() -> None:
    alike = [{"gpus": gpus, "models": 30, "assumed": 0, "active": 4, "values": [2, 3, 4, 5, 8, 10]} for gpus in (1, 8)]
    make_forecast(by_size=alike)
    policy.change(aim="prices", gpu_hour_price=3.0, cold_price=10.0, actor=ACTOR)
    found = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert found is not None and found.sizes[1] > found.sizes[8] >= 4
    assert found.why.startswith("95.24% sure of slots of 1, 71.43% sure of slots of 8 for the next 10 min, by least")
    policy.change(aim="risk", actor=ACTOR)
    alone = reserve.wanted_by(policy.current(), MONDAY.timestamp())
    assert alone is not None and alone.sizes[1] == alone.sizes[8], "a share of waits knows no prices"


def test_what_has_partitions_of_its_own_takes_no_slot_of_the_pool() -> None:
    make_forecast()
    for name, mode in (("own", "dedicated"), ("quiet", "dedicated"), ("shared", "pooled")):
        make_deployment(name, mode=mode)
    for name, before_s in (("own", 60), ("shared", 60), ("quiet", 3600)):
        DemandMinute.objects.create(deployment=name, minute=MONDAY - timedelta(seconds=before_s), arrivals=1)
    slots, why = wanted()
    assert slots == 9 and why.endswith("less 1 with partitions of their own")


def test_it_is_weighed_by_the_curves_of_the_week() -> None:
    row = policy.current()
    assert weigh(row).slots is None
    make_standing(300)
    make_standing(900, scale=2.0)
    at_one = weigh(row)
    assert (at_one.slots, at_one.cold, at_one.about, at_one.cost) == (10, 0.01, False, None)
    between = weigh(policy.changed({"keep_alive_s": 520}))
    assert at_one.slots < between.slots < weigh(policy.changed({"keep_alive_s": 900})).slots and between.about
    dear, cheap = (
        weigh(policy.changed({"aim": "prices", "gpu_hour_price": 2.0, "cold_price": price})) for price in (50.0, 0.5)
    )
    assert dear.slots > cheap.slots and dear.cost > cheap.cost
    assert cheap.cost == pytest.approx(720 * (cheap.slots * 2.0 + cheap.waits_per_hour * 0.5))


def test_it_is_weighed_by_the_slots_of_each_size() -> None:
    make_standing(300, by_size=[of_size(1, 1.0), of_size(4, 0.25)])
    found = weigh(policy.current())
    assert (found.slots, found.gpus) == (10 + 3, 10 + 3 * 4)
    assert found.waits_per_hour == pytest.approx(0.01 * (20 + 5)) and found.cold == pytest.approx(0.01)
    assert weigh(policy.changed({"most_cold": 1e-4})).slots is None, "beyond the end of a curve"
    priced = weigh(policy.changed({"gpu_hour_price": 2.0, "cold_price": 0.5}))
    assert priced.cost == pytest.approx(720 * (22 * 2.0 + 0.25 * 0.5)), "by GPUs, not by slots"


def test_by_prices_fewer_slots_are_held_of_what_is_dearer() -> None:
    found = []
    for gpus in (1, 4):
        Standing.objects.all().delete()
        make_standing(300, by_size=[of_size(gpus, 1.0)])
        found.append(weigh(policy.changed({"aim": "prices", "gpu_hour_price": 2.0, "cold_price": 2.0})))
    one, four = found
    assert one.slots is not None and four.slots is not None and one.slots > four.slots
    assert four.gpus == 4 * four.slots


def test_over_rest_it_is_read_tried_out_and_changed_by_who_saw_it(operator: APIClient, viewer: APIClient) -> None:
    make_standing(300)
    found = viewer.get(ADDRESS)
    assert (found["ETag"], found.json()["weighed"]["slots"], found.json()["held"]) == ('"v0"', 10, None)
    tried = operator.patch(f"{ADDRESS}?dry_run=true", {"most_cold": 0.002}, format="json")
    assert (tried.json()["weighed"]["slots"], tried.json()["version"]) == (12, 0)
    assert not CapacityPolicy.objects.exists()
    body = {"most_cold": 0.002, "floors": ["Mon 9:00-12:00 12"], "reason": "fewer waits"}
    done = operator.patch(ADDRESS, body, format="json", headers={"If-Match": '"v0"'})
    assert (done.status_code, done["ETag"], done.json()["floors"]) == (200, '"v1"', ["Mon 9:00-12:00 12"])
    late = operator.patch(ADDRESS, {"most_cold": 0.1}, format="json", headers={"If-Match": '"v0"'})
    assert "version 1" in problem_of(late, 412)["detail"]
    problem_of(operator.patch(ADDRESS, {"most_cold": 0.1, "expected_version": 0}, format="json"), 409)
    assert (
        problem_of(operator.patch(ADDRESS, {"floors": ["Mon"]}, format="json"), 400)["problems"][0]["code"] == "floor"
    )
    problem_of(viewer.patch(ADDRESS, {"most_cold": 0.1}, format="json"), 403)
    assert policy.current().most_cold == 0.002


def test_on_the_page_it_is_tried_out_saved_and_taken_back(client: Any) -> None:
    make_standing(300)
    client.force_login(make_user("operator"), backend="django.contrib.auth.backends.ModelBackend")
    page = client.get("/capacity/policy")
    fields = {name: value for name, value in page.context["form"].initial.items() if value is not None}
    wish = {**fields, "most_cold": "0.2", "floors": "Mon 9:00-12:00 12", "time_zone": "Europe/Berlin", "reason": "x"}
    effect = client.get("/capacity/policy/preview", wish).content.decode()
    assert ">10</td>" in effect and ">12</td>" in effect
    assert "Correct the form" in client.get("/capacity/policy/preview", {**wish, "floors": "no"}).content.decode()
    assert client.post("/capacity/policy", {**wish, "floors": "Mon"}).status_code == 422
    answer = client.post("/capacity/policy", wish, follow=True)
    assert policy.current().floors == ["Mon 9:00-12:00 12"] and "is changed" in answer.content.decode()
    late = client.post("/capacity/policy", {**wish, "most_cold": "5"})
    assert late.status_code == 409 and "version 1" in late.content.decode()
    offered = answer.content.decode().split('action="/capacity/policy"')[1].split("</form>")[0]
    back = dict(re.findall(r'name="(\w+)" value="([^"]*)"', offered))
    client.post("/capacity/policy", back)
    assert (policy.current().floors, policy.current().most_cold, policy.current().version) == ([], 0.01, 2)
