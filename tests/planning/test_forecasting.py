"""History in, forecasts out: what is on record, what is said of the time to come, and what it came to."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests, count, runs
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.problems import DomainError
from controlplane.gateway.models import DemandMinute
from controlplane.planning import forecasting, history, keeping, outlook, policy, standing
from controlplane.planning.agreeing import agree
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.models import ActivityDay, Forecast, RecordedSpan, Standing
from controlplane.planning.packing import Damaged, Packed, pack, unpack
from controlplane.planning.weighing import weigh
from tests.domain.forecast.worlds import fleet
from tests.factories import make_deployment

T0 = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
PACES = {600: Pace(600.0, 1), 3600: Pace(3600.0, 1)}
ACTOR = Actor.system("test")


@st.composite
def bursts(draw: st.DrawFn) -> Packed:
    size = draw(st.integers(0, 40))
    dice = np.random.default_rng(draw(st.integers(0, 2**31)))
    at = np.sort(dice.uniform(0, DAY_S, size))
    numbers = dice.integers(0, 10**9, (3, size))
    return Packed(at, at + dice.exponential(500.0, size), *numbers)


@settings(deadline=None)
@given(bursts())
def test_what_is_packed_comes_out_again_to_a_tenth_of_a_second(made: Packed) -> None:
    found = unpack(pack(made))
    assert (
        np.abs(found.at - made.at).max(initial=0) <= 0.051 and np.abs(found.until - made.until).max(initial=0) <= 0.051
    )
    assert all((getattr(found, name) == getattr(made, name)).all() for name in ("number", "prompt", "completion"))


@pytest.mark.parametrize("data", [b"", b"no", pack(Packed(*[np.zeros(3)] * 2, *[np.ones(3, np.int64)] * 3))[:-4]])
def test_damaged_bytes_are_told(data: bytes) -> None:
    with pytest.raises(Damaged):
        unpack(data)


def moved(requests: Requests, by: float) -> Requests:
    return Requests(requests.models, requests.model, requests.at + by, requests.until + by, requests.number)


@pytest.fixture(scope="module")
def world() -> Requests:
    return moved(fleet(12, 2.0), T0)


@pytest.fixture
def imported(db: None, world: Requests) -> Requests:
    keeping.save_import(world, actor=ACTOR, now=T0 + 3 * DAY_S)
    return world


def test_an_import_is_found_again_and_twice_is_once(imported: Requests) -> None:
    found = history.requests(T0, T0 + 3 * DAY_S)
    at = np.arange(T0, T0 + 2 * DAY_S, 600.0)
    assert (count(runs(found, 300.0)).at(at) == count(runs(imported, 300.0)).at(at)).mean() > 0.99
    assert found.number.sum() == imported.number.sum()
    again = keeping.save_import(imported, actor=ACTOR, now=T0 + 3 * DAY_S)
    assert again.replaced == again.days
    assert history.requests(T0, T0 + 3 * DAY_S).number.sum() == imported.number.sum()
    assert AuditEvent.objects.filter(verb="import-activity").count() == 2


@pytest.mark.parametrize(
    ("names", "at", "code"),
    [
        (("a",), [], "no-requests"), (("a",), [T0 * 2], "times-out-of-range"), (("a",), [1.0], "times-out-of-range"),
        (("x" * 121,), [T0], "bad-model-names"), (("a\0b",), [T0], "bad-model-names"),
        (("\ud800",), [T0], "bad-model-names"), (("",), [T0], "bad-model-names"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_kept(db: None, names: Any, at: list[float], code: str) -> None:
    with pytest.raises(DomainError, match="Nothing was imported") as refused:
        keeping.save_import(Requests.of(names, [0] * len(at), at), actor=ACTOR, now=T0 + DAY_S)
    assert refused.value.problem.code == code
    assert not ActivityDay.objects.exists() and not RecordedSpan.objects.exists()


def test_a_damaged_day_is_left_out_and_the_others_are_read(imported: Requests) -> None:
    row = ActivityDay.objects.order_by("pk").first()
    assert row is not None
    ActivityDay.objects.filter(pk=row.pk).update(bursts=b"garbage")
    assert history.requests(T0, T0 + 3 * DAY_S).number.sum() == imported.number.sum() - row.requests


def test_gateways_minutes_count_at_once_and_are_packed_when_they_are_old(db: None) -> None:
    minute = datetime.fromtimestamp(T0 + 3600, UTC)
    DemandMinute.objects.create(deployment="chat", minute=minute, arrivals=7, active_s=40.0, prompt_tokens=70)
    before = history.requests(T0, T0 + DAY_S)
    assert (before.models, before.at.tolist(), before.until.tolist()) == (("chat",), [T0 + 3600], [T0 + 3660])
    assert keeping.pack_minutes(T0 + 2 * DAY_S) == 0, "others may still add to them"
    assert keeping.pack_minutes(T0 + 5 * DAY_S) == 1 and not DemandMinute.objects.exists()
    after = history.requests(T0, T0 + DAY_S)
    assert (after.at.tolist(), after.until.tolist(), after.number.tolist()) == ([T0 + 3600], [T0 + 3660], [7])
    assert ActivityDay.objects.get().day == date(2026, 3, 2)
    keeping.prune(T0 + 500 * DAY_S)
    assert not ActivityDay.objects.exists()


def test_no_record_is_an_outage_and_a_restart_is_none(db: None) -> None:
    for at in (*range(0, 3600, 60), *range(3700, 7200, 60), *range(20_000, 22_000, 60)):
        keeping.note_recorded(T0 + at)
    assert RecordedSpan.objects.count() == 2
    assert [(gap.start - T0, gap.end - T0) for gap in history.outages(T0 - DAY_S, T0 + 22_000)] == [(7180, 20_000)]
    [_, now] = history.outages(T0, T0 + 30_000)
    assert now.start == T0 + 21_980 and now.end == np.inf


def tick(until: float, since: float, teller: Forecasting) -> None:
    for at in np.arange(since, until, 600.0):
        teller.tick(float(at))


def told() -> dict[tuple[int, float], tuple[int | None, list[int]]]:
    return {(row.horizon_s, row.at.timestamp()): (row.active, row.values) for row in Forecast.objects.all()}


def test_forecasts_are_made_replayed_and_settled_and_a_restart_says_the_same(imported: Requests) -> None:
    end = T0 + 2 * DAY_S - 600
    one = Forecasting(PACES)
    tick(end, end - 3 * 3600, one)
    assert one.tick(end - 1) == 0, "one a step"
    without_a_break = told()
    Forecast.objects.filter(at__gte=datetime.fromtimestamp(end - 3600, UTC)).delete()
    tick(end, end - 3600, Forecasting(PACES))
    assert told() == without_a_break
    over = Forecast.objects.exclude(peak=None)
    assert over.count() > 100 and Forecast.objects.filter(replayed=True).count() > 100
    truth = count(runs(imported, 300.0))
    for row in random.Random(1).sample(list(over), 20):
        assert row.peak == truth.peak([row.at.timestamp()], row.horizon_s)[0]
        assert row.active is not None and row.values == sorted(row.values) and row.values[0] >= row.active
    found = outlook.outlook(outlook.Asked(600, end - DAY_S, end), end)
    assert found["calibration"]["windows"] > 100 and found["calibration"]["covered"][-1] > 0.9
    assert {one["horizon_s"] for one in found["newest"]} == set(PACES) and found["outage_since"] is None


def test_the_peak_of_an_hour_is_no_less_than_that_of_its_first_ten_minutes(imported: Requests) -> None:
    made = Forecasting(paces={600: Pace(600.0, 1), 3600: Pace(600.0, 1)})
    assert made.tick(float(np.ceil(imported.until.max() / 600.0) * 600.0) + 5.0) > 0
    rows = {(row.horizon_s, row.at): row for row in Forecast.objects.all()}
    shorter = [row for (horizon, _), row in rows.items() if horizon == 600]
    assert len(shorter) > 20
    for row in shorter:
        longer = rows[3600, row.at]
        assert all(most >= least for most, least in zip(longer.values, row.values, strict=True))
    row = max(shorter, key=lambda one: one.at)
    longer = Forecast(
        at=row.at, horizon_s=3600, keep_alive_s=row.keep_alive_s, levels=row.levels, values=[0] * len(row.values),
        by_size=[{"gpus": 1, "values": [1, 1]}],
    )  # fmt: skip
    Forecast.objects.filter(pk=row.pk).update(by_size=[{"gpus": 1, "values": [3, 0]}])
    agree([longer], [600, 3600, 86_400])
    assert (longer.values, longer.by_size[0]["values"]) == (row.values, [3, 1])


def test_in_an_outage_what_is_active_is_unknown_and_the_forecast_holds(imported: Requests) -> None:
    teller, now = Forecasting({600: Pace(600.0, 1)}), T0 + 2 * DAY_S + 7200
    teller.tick(T0 + 2 * DAY_S - 1200)
    before = Forecast.objects.latest("at")
    teller.tick(now)
    row = Forecast.objects.latest("at")
    assert row.active is None and row.values[-1] >= before.values[2], "no data is not no demand"
    assert outlook.outlook(outlook.Asked(600, now - DAY_S, now), now)["outage_since"] is not None
    assert Forecast.objects.get(at=before.at).peak is not None
    assert Forecast.objects.get(at=datetime.fromtimestamp(T0 + 2 * DAY_S + 3600, UTC)).peak is None


def test_without_any_record_nothing_is_said(db: None) -> None:
    assert Forecasting(PACES).tick(T0) == 0 and standing.refresh(T0) == 0
    found = outlook.outlook(outlook.Asked(600, T0 - DAY_S, T0), T0)
    assert (found["newest"], found["recorded_since"], found["calibration"]["covered"][0]) == ([], None, None)


def test_one_request_ever_is_enough_not_to_fail(db: None) -> None:
    keeping.note_recorded(T0)
    DemandMinute.objects.create(deployment="chat", minute=datetime.fromtimestamp(T0, UTC), arrivals=1)
    keeping.note_recorded(T0 + 120)
    Forecasting(PACES).tick(T0 + 1200)
    rows = Forecast.objects.all()
    known = [row.known_models == int(row.at.timestamp() > T0) for row in rows]
    assert rows and all(known) and all(row.values[-1] >= 0 for row in rows)


@pytest.mark.parametrize(("deployed", "most"), [("m0 m1", 2), ("m0 m1 idle", 3), ("elsewhere", 4)])
def test_no_more_models_are_foreseen_than_there_are(db: None, deployed: str, most: int) -> None:
    """A record of half an hour, in which two models came one after the other, would tell of two more."""
    for name in deployed.split():
        make_deployment(name)
    at = np.arange(0, 1800, 20.0)
    model = (at > 900).astype(np.int64) * (np.arange(len(at)) % 2)
    found = Requests(("m0", "m1"), model, T0 + at, T0 + at + 5.0, np.ones(len(at), np.int64))
    keeping.save_import(found, actor=ACTOR, now=T0 + 1800)
    Forecasting(PACES).tick(T0 + 1800)
    newest = Forecast.objects.filter(horizon_s=600).latest("at")
    assert newest.known_models == 2
    assert newest.values[-1] <= most
    assert all(one["values"][-1] <= most for one in newest.by_size)


def test_more_slots_leave_less_cold_and_a_longer_keep_alive_needs_more(imported: Requests) -> None:
    now = T0 + 2 * DAY_S
    assert standing.refresh(now) == len(standing.KEEP_ALIVES_S) and standing.refresh(now + 60) == 0
    rows = list(Standing.objects.all())
    for row in rows:
        slots, cold, idle = np.array(row.curve).T
        assert (np.diff(slots) > 0).all() and (np.diff(cold) <= 1e-9).all() and (np.diff(idle) >= -1e-9).all()
    expected = [row.expected for row in rows]
    assert expected == sorted(expected) and rows[0].keep_alive_s < rows[-1].keep_alive_s
    seen = count(runs(imported, 300.0)).mean(T0 + 3600, now)
    assert rows[1].expected == pytest.approx(seen, rel=0.1), "E[m] is the mean that was"


def test_after_ten_minutes_there_is_a_first_curve_of_keep_alives_that_so_little_tells_of(db: None) -> None:
    keeping.note_recorded(T0)
    minutes = [DemandMinute(deployment=name, minute=datetime.fromtimestamp(T0 + 60 * at, UTC), arrivals=2)
               for at, name in ((0, "a"), (1, "b"), (7, "a"))]  # fmt: skip
    DemandMinute.objects.bulk_create(minutes)
    for minute in range(1, 13):
        keeping.note_recorded(T0 + 60 * minute)
    assert standing.refresh(T0 + 540) == 0, "too little"
    assert standing.refresh(T0 + 720) == 2 and standing.refresh(T0 + 780) == 0
    assert [one.keep_alive_s for one in Standing.objects.order_by("keep_alive_s")] == [60, 300]
    first = Standing.objects.get(keep_alive_s=60)
    assert first.days == pytest.approx(0.2 / 24, rel=0.05) and first.activations_per_hour == pytest.approx(15, rel=0.05)
    weighed = weigh(policy.changed({"keep_alive_s": 1800}))
    assert weighed.about, "of half an hour nothing can be known yet"
    assert standing.refresh(T0 + 1400) == 3, "each ten minutes in the first hour, and the next keep-alive"


def test_the_command_imports_a_trace_says_what_it_did_and_a_dry_run_does_nothing(db: None, tmp_path: Path) -> None:
    trace = tmp_path / "log.csv"
    trace.write_text("t_s,model,duration_s\n10,chat,2\n4000,code,1\n")
    said = StringIO()
    call_command("import_activity", str(trace), "--shift-to", "now", "--dry-run", stdout=said)
    assert "Would import 2 requests for 2 models" in said.getvalue() and not ActivityDay.objects.exists()
    with pytest.raises(CommandError, match="between the year 2000 and now"):
        call_command("import_activity", str(trace), stdout=StringIO())
    call_command("import_activity", str(trace), "--shift-to", "now", stdout=said)
    assert "Imported 2 requests for 2 models" in said.getvalue() and ActivityDay.objects.count() == 2
    trace.write_text("t_s,model,duration_s\nnan,chat,2\n")
    with pytest.raises(CommandError, match=r"line 2.*Nothing was imported"):
        call_command("import_activity", str(trace), stdout=StringIO())


def test_what_is_exported_is_imported_again(imported: Requests, tmp_path: Path) -> None:
    file, said = tmp_path / "history.csv.gz", StringIO()
    days = (datetime.now(UTC).timestamp() - T0) / DAY_S + 1
    call_command("export_activity", str(file), "--days", str(days), stdout=said)
    assert f"of {len(set(imported.model.tolist()))} models" in said.getvalue()
    ActivityDay.objects.all().delete()
    with pytest.raises(CommandError, match="No file was written"):
        call_command("export_activity", str(tmp_path / "none.csv"), stdout=StringIO())
    call_command("import_activity", str(file), stdout=said)
    assert history.requests(T0, T0 + 3 * DAY_S).number.sum() == imported.number.sum()


def test_rest_and_the_page_tell_it(imported: Requests, client: Any) -> None:
    from tests.factories import make_user

    client.force_login(make_user("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    assert b"No forecast yet" in client.get("/capacity/").content
    answer = client.get("/api/v1/capacity?horizon_s=3600&hours=6").json()
    assert answer["horizon_s"] == 3600 and answer["levels"] == list(forecasting.LEVELS)
    assert client.get("/api/v1/capacity?horizon_s=7").status_code == 400
    RecordedSpan.objects.all().delete()
    assert b"Nothing is on record yet" in client.get("/capacity/").content
