"""The record is of moments, not of what a clock on a wall showed: no zone and no change of clocks alters it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from controlplane.domain.forecast.hazards import DAY_S
from controlplane.gateway.models import DemandMinute
from controlplane.planning import history, keeping
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.models import ActivityDay, Forecast, RecordedSpan
from controlplane.planning.raster import raster

pytestmark = pytest.mark.django_db
CHANGES = [datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]  # of New York's clocks
ZONES = ["America/New_York", "Australia/Lord_Howe"]  # of an hour; of half an hour, the other way round


@pytest.fixture(params=CHANGES, ids=str)
def midnight(request: pytest.FixtureRequest) -> datetime:
    found: datetime = request.param
    return found


@pytest.fixture
def process_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the zone of the process and of the site."""

    def put(zone: str, settings: Any) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        settings.TIME_ZONE = zone

    yield put
    monkeypatch.undo()
    time.tzset()


def asked(midnight: datetime) -> None:
    """Each twelve minutes from noon before to noon after, for one model; each hour for another."""
    minutes = [midnight + timedelta(minutes=12 * step) for step in range(-60, 60)]
    rows = [DemandMinute(deployment="chat", minute=minute, arrivals=2) for minute in minutes]
    rows += [DemandMinute(deployment="hourly", minute=minute, arrivals=1) for minute in minutes[::5]]
    DemandMinute.objects.bulk_create(rows)
    RecordedSpan.objects.create(start=minutes[0], end=minutes[-1] + timedelta(minutes=12), source="gateway")


def seen(midnight: datetime) -> dict[str, Any]:
    at = midnight.timestamp()
    requests = history.requests(at - DAY_S, at + DAY_S)
    drawn = raster(midnight.date(), 10, at + DAY_S / 2)["rows"]
    Forecasting({600: Pace(600.0, 1)}).tick(at + DAY_S / 2 - 60.0)
    told = Forecast.objects.order_by("at").values_list("at", "active", "values", "peak")
    return {"at": requests.at.tolist(), "number": requests.number.tolist(), "drawn": drawn, "told": list(told)}


@pytest.mark.parametrize("zone", ZONES)
def test_zones_and_changes_of_clocks_alter_no_record_and_no_forecast(
    zone: str, midnight: datetime, process_zone: Any, settings: Any
) -> None:
    asked(midnight)
    plain = seen(midnight)
    assert len(plain["at"]) == 144 and len(plain["told"]) > 60
    Forecast.objects.all().delete()
    process_zone(zone, settings)
    assert seen(midnight) == plain
    for _ in range(2):
        assert keeping.pack_minutes(midnight.timestamp() + 6 * DAY_S) > 0
    assert not DemandMinute.objects.exists()
    before = (midnight - timedelta(days=1)).date()
    assert set(ActivityDay.objects.values_list("day", flat=True)) == {before, midnight.date()}
    Forecast.objects.all().delete()
    assert seen(midnight) == plain, "packed by the day of UTC"


def test_a_day_has_as_many_hours_as_any_other(process_zone: Any, settings: Any) -> None:
    process_zone("America/New_York", settings)
    DemandMinute.objects.create(deployment="late", minute=datetime(2026, 3, 8, 23, 59, tzinfo=UTC), arrivals=1)
    RecordedSpan.objects.create(
        start=datetime(2026, 3, 7, tzinfo=UTC), end=datetime(2026, 3, 10, tzinfo=UTC), source="gateway"
    )
    found = raster(date(2026, 3, 8), 10, datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    assert found["until_s"] == DAY_S and found["rows"][0]["busy"] == [[DAY_S - 60, DAY_S]]
