"""A model that is asked for for the first time does not cost what was learned of the others, and one round reads the
record once."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.blend import Blend
from controlplane.domain.forecast.falls import Falls
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.gateway.models import DemandMinute
from controlplane.planning import habits, history, keeping, standing
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.history import Reading
from controlplane.planning.learned import Asked
from controlplane.planning.models import Forecast
from tests.domain.forecast.worlds import fleet
from tests.planning.test_forecasting import T0, moved, told

pytestmark = pytest.mark.django_db
PACES = {600: Pace(600.0, 1), 3600: Pace(600.0, 1), 86_400: Pace(3600.0, 1)}
NOW = T0 + 2 * DAY_S


@pytest.fixture(autouse=True)
def imported() -> Requests:
    """Two days of twelve models, and gateways that go on to record, though nothing is asked for."""
    world = moved(fleet(12, 2.0), T0)
    keeping.save_import(world, actor=Actor.system("test"), now=NOW + DAY_S)
    for at in range(-600, 7200, 60):
        keeping.note_recorded(NOW + at)
    return world


def asked(name: str, at: float) -> None:
    DemandMinute.objects.create(deployment=name, minute=datetime.fromtimestamp(at, UTC), arrivals=3)


def learned(teller: Forecasting) -> dict[tuple[int, int], Asked]:
    return {(key.horizon_s, key.gpus): one for key, one in teller._asked.items()}


@pytest.mark.parametrize("name", ["a-new", "z-new"])
def test_with_a_new_model_what_was_learned_is_kept_and_a_restart_says_the_same(name: str) -> None:
    teller = Forecasting(PACES)
    teller.tick(NOW)
    before = learned(teller)
    asked(name, NOW + 120)
    asked(name, NOW + 960)
    assert teller.tick(NOW + 600) > 0
    teller.tick(NOW + 1200)
    after = learned(teller)
    kept = [key for key in before if key[0] != 86_400]
    assert len(kept) == 2
    assert all(after[key] is before[key] and name in after[key].models for key in kept)
    without_a_break = told()
    newest = Forecast.objects.latest("at")
    assert newest.known_models == 13 and newest.active is not None
    Forecast.objects.filter(at__gte=datetime.fromtimestamp(NOW + 600, UTC)).delete()
    Forecasting(PACES).tick(NOW + 1200)
    assert told() == without_a_break


@pytest.mark.parametrize(("at", "is_kept"), [(-300, True), (-7200, False)])
def test_one_told_late_by_minutes_is_taken_as_it_is_and_one_with_a_past_has_all_learned_anew(
    at: float, is_kept: bool
) -> None:
    teller = Forecasting(PACES)
    teller.tick(NOW)
    before = learned(teller)
    asked("late", NOW + at)
    teller.tick(NOW + 600)
    assert (learned(teller)[600, 0] is before[600, 0]) is is_kept
    assert "late" in learned(teller)[600, 0].models


def test_a_model_that_none_of_the_days_looked_at_knows_costs_nothing_and_is_not_counted(imported: Requests) -> None:
    asked("long-ago", T0 - 12 * DAY_S)
    teller = Forecasting(PACES)
    teller.tick(NOW)
    before = learned(teller)
    teller.tick(NOW + 600)
    assert learned(teller)[600, 0] is before[600, 0], "the hour's look, which reads further back, is over"
    assert Forecast.objects.filter(horizon_s=600).latest("at").known_models == len(set(imported.model.tolist()))


def test_of_who_is_missing_since_a_common_fall_the_places_change_with_the_models() -> None:
    falls = Falls()
    falls._missing = {0: 5.0, 2: 7.0}
    forecaster = Blend([], np.array([0.5]), ())
    forecaster._falls = falls
    forecaster.joined(np.array([1, 2, 4]))
    assert falls._missing == {1: 5.0, 4: 7.0}


def test_a_round_reads_the_record_once_for_all_who_look() -> None:
    teller = Forecasting(PACES)
    teller.tick(NOW - 3600)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        reading = Reading(NOW)
        assert teller.tick(NOW, reading) > 0
        assert standing.refresh(NOW, reading) > 0 and habits.refresh(NOW, reading) > 0
    for table in ("gateway_demandminute", "planning_activityday"):
        read = [one["sql"] for one in queries if (f'FROM "{table}"' in one["sql"] and "bursts" in one["sql"])
                or (f'FROM "{table}"' in one["sql"] and "arrivals" in one["sql"])]  # fmt: skip
        assert len(read) == 1, table
    assert Forecast.objects.filter(horizon_s=600).exclude(peak=None).exists()


def test_who_looks_further_back_than_what_was_read_has_it_read_again() -> None:
    reading = Reading(NOW)
    few = reading.requests(NOW - 3600)
    many = reading.requests(NOW - DAY_S)
    assert len(many.at) > len(few.at) and (many.at < NOW).all()
    assert reading.requests(NOW - 3600).at.tolist() == few.at.tolist()
    whole = history.requests(NOW - DAY_S, NOW)
    assert (whole.models, whole.at.tolist()) == (many.models, many.at.tolist())
