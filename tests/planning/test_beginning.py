"""What a new installation's first forecast waits for, as the page and programs are told."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import brake
from controlplane.fleet.models import BrakeRow, GatewayBeat
from controlplane.planning import beginning, keeping, policy
from controlplane.planning.beginning import Beginning
from controlplane.planning.forecasting import Forecasting
from controlplane.planning.models import RecordedSpan
from controlplane.web.capacity_beginning import steps
from tests.domain.forecast.worlds import fleet
from tests.factories import make_user

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
NOON = 1_800_000_000.0 // 3600 * 3600
MINUTE = 60.0


def begun(minutes: float, **values: object) -> Beginning:
    fixed = {"models": 3, "gateways": 1, "anew": False, "worker_silent_s": 5.0}
    first = {600: NOON, 3600: NOON, 86_400: NOON + 3600}
    at = {"recorded_since": NOON - minutes * MINUTE, "first_at": first, "what_if_at": NOON + 4 * MINUTE}
    return Beginning(**(fixed | at | values))  # type: ignore[arg-type]


def said(found: Beginning, now: float) -> list[tuple[str, str]]:
    return [(step.state, step.text) for step in steps(found, now)]


def test_what_is_missing_is_told_step_by_step_and_when_it_comes() -> None:
    [record, first, what_if, _] = said(begun(6), NOON - 2 * MINUTE)
    assert record[0] == "done" and record[1].endswith("UTC, 4 min: 3 models.")
    assert first == ("now", "At 2027-01-15 08:00 UTC, in 2 min. That of the day ahead comes at 2027-01-15 09:00 UTC.")
    assert what_if[0] == "later" and "at 2027-01-15 08:04 UTC" in what_if[1]
    due = said(begun(6), NOON + 30)[1]
    assert due[0] == "now" and due[1].startswith("It is being made.")
    assert said(begun(6, anew=True), NOON + 30)[1][1].startswith("The keep-alive was changed")


def test_who_does_not_do_its_part_is_named() -> None:
    nothing = begun(0, recorded_since=None, first_at=None, what_if_at=None, models=0, gateways=0)
    assert said(nothing, NOON)[0] == (
        "bad", "Nothing, and no gateway is heard. Start one: manage.py gateway; manage.py up starts it with all else.",
    )  # fmt: skip
    assert "nothing was asked yet" in said(begun(6, models=0), NOON)[0][1]
    assert "No gateway is heard now" in said(begun(6, gateways=0), NOON)[0][1]
    for silent, words in ((None, "was never heard"), (300.0, "is silent for 5 min")):
        state, text = said(begun(6, worker_silent_s=silent), NOON + 30)[1]
        assert state == "bad" and words in text


def test_it_is_over_with_the_first_forecast_and_begins_anew_with_another_keep_alive() -> None:
    now = time.time()
    empty = beginning.beginning(now)
    assert empty is not None and (empty.recorded_since, empty.first_at, empty.worker_silent_s) == (None, None, None)
    GatewayBeat.objects.create(name="gw:1", seen_at=timezone.now())
    brake.look()
    world = fleet(3, 0.1, wakes_a_day=300.0)
    by = now - world.at.max()
    past = Requests(world.models, world.model, world.at + by, world.until + by, world.number)
    keeping.save_import(past, actor=ACTOR, now=now)
    found = beginning.beginning(now)
    assert found is not None and found.recorded_since is not None and found.first_at is not None
    assert (found.models, found.gateways, found.is_worker_silent, found.anew) == (3, 1, False, False)
    assert 0 <= found.first_at[600] - found.recorded_since < 600
    assert found.first_at[600] <= now
    Forecasting().tick(now)
    assert beginning.beginning(now) is None
    policy.change(keep_alive_s=policy.current().keep_alive_s + 60, actor=ACTOR)
    again = beginning.beginning(now)
    assert again is not None and again.anew


def test_the_page_and_programs_tell_the_same(client: Client) -> None:
    client.force_login(make_user("operator"))
    page = client.get("/capacity/").content.decode()
    assert "Nothing is on record yet" in page and "Import a history" in page and "no gateway is heard" in page
    assert "capacity.js" not in page, "no empty chart is drawn"
    assert client.get("/api/v1/capacity").json()["beginning"]["recorded_since"] is None
    now = timezone.now()
    RecordedSpan.objects.create(start=now - timezone.timedelta(minutes=2), end=now, source="gateway")
    assert "The control worker makes it, and was never heard" in client.get("/capacity/begins").content.decode()
    BrakeRow.objects.update_or_create(pk=1, defaults={"looked_at": now})
    told = client.get("/capacity/begins").content.decode()
    assert "nothing was asked yet" in told and "control worker" not in told
    assert client.get("/api/v1/capacity").json()["beginning"]["worker_silent"] is False
    Forecasting().tick(now.timestamp() + 600)
    assert client.get("/capacity/begins")["HX-Refresh"] == "true"
    assert "capacity.js" in client.get("/capacity/").content.decode()
