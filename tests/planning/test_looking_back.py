"""What people see of the past: who was active when, and what holding ready came to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.planning import keeping, policy
from controlplane.planning.forecasting import LEVELS
from controlplane.planning.models import Forecast
from controlplane.planning.raster import lately, raster
from controlplane.planning.spent import spent

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
MIDNIGHT = datetime(2026, 7, 6, tzinfo=UTC)
T0 = MIDNIGHT.timestamp()
HOUR = 3600.0


def kept(*spans: tuple[str, float, float, int]) -> None:
    """(model, from, until, requests), hours from midnight."""
    names = tuple(sorted({name for name, *_ in spans}))
    at, until = (T0 + HOUR * np.array([span[place] for span in spans]) for place in (1, 2))
    model, number = [names.index(span[0]) for span in spans], [span[3] for span in spans]
    keeping.save_import(Requests.of(names, model, at, until, number), actor=ACTOR, now=T0 + 30 * HOUR)


def test_the_raster_has_the_most_active_first_and_says_of_what_nothing_is_known() -> None:
    kept(("rare", 5.0, 5.01, 1), ("busy", 2.0, 4.0, 900), ("busy", 4.01, 6.0, 10), ("over", -1.0, 3.0, 5))
    found = raster(date(2026, 7, 6), 10, T0 + 12 * HOUR)
    assert [row["name"] for row in found["rows"]] == ["busy", "over", "rare"] and found["models"] == 3
    busy, over, rare = found["rows"]
    assert busy["busy"] == [[7200, 21600]], "a pause of half a minute is not drawn"
    assert (busy["requests"], busy["activations"], busy["busy_s"], busy["active_s"]) == (910, 1, 14400, 14700)
    assert (over["busy"], over["requests"], over["activations"]) == ([[-3600, 10800]], 0, 0), "it came the day before"
    assert rare["active_s"] - rare["busy_s"] == 300
    assert found["gaps"] == [[6 * HOUR, 12 * HOUR]], "the import ends at six"
    assert (found["first_day"], found["until_s"]) == ("2026-07-05", 12 * HOUR)
    assert [row["name"] for row in raster(date(2026, 7, 6), 1, T0 + 12 * HOUR)["rows"]] == ["busy"]
    assert raster(date(2026, 7, 9), 9, T0 + 12 * HOUR)["rows"] == []


def test_of_the_last_hours_only_who_is_asked_for_is_drawn() -> None:
    kept(("rare", 5.0, 5.01, 1), ("busy", 2.0, 4.0, 900), ("busy", 4.01, 6.0, 10), ("over", -1.0, 3.0, 5))
    found = lately(8, 10, T0 + 12 * HOUR)
    assert (found["start"], found["span_s"], found["until_s"]) == (T0 + 4 * HOUR, 8 * HOUR, 8 * HOUR)
    assert [(row["name"], row["busy"]) for row in found["rows"]] == [
        ("busy", [[-7200, 7200]]),
        ("rare", [[3600, 3636]]),
    ]
    assert [row["name"] for row in lately(8, 10, T0 + 12 * HOUR, {"rare", "none"})["rows"]] == ["rare"]
    assert lately(8, 10, T0 + 12 * HOUR, set())["rows"] == []


def told(hour: float, active: int, peak: int | None, high: int = 10, **columns: Any) -> Forecast:
    return Forecast.objects.create(
        at=MIDNIGHT + timedelta(hours=hour), horizon_s=600, keep_alive_s=300, active=active, known_models=30,
        levels=list(LEVELS), values=[1, 2, 3, 4, 8, high], method="best", recorded_s=1e6, peak=peak, replayed=hour < 1,
        **columns,
    )  # fmt: skip


def test_what_was_held_and_used_adds_up_by_day_and_in_money() -> None:
    told(0.5, 2, 9)
    told(6.0, 6, 12)
    told(12.0, 1, None)
    told(25.0, 3, 4)
    found = spent(2, T0 + 26 * HOUR)
    first, second = found["days"]
    assert [first["day"], second["day"]] == ["2026-07-06", "2026-07-07"]
    assert (first["windows"], first["replayed"], first["short"]) == (2, 1, 1)
    assert first["used_h"] == pytest.approx(8 / 6, abs=1e-3)
    assert first["held_h"] == pytest.approx((10 + 12) / 6, abs=1e-3), (
        "who came above the reserve was served all the same"
    )
    assert first["static_h"] == pytest.approx(12 * 2 / 6, abs=1e-3)
    assert (first["covered"], second["covered"]) == ([0.0, 0.5], [1.0, 1.0]) and first["held_cost"] is None
    assert spent(1, T0 + 26 * HOUR)["days"] == [second]
    policy.change(gpu_hour_price=3.0, floors=["Mon 0:00-24:00 20"], actor=ACTOR)
    dearer = spent(2, T0 + 26 * HOUR)["days"][0]
    assert (dearer["held_h"], dearer["short"]) == (pytest.approx(40 / 6, abs=1e-3), 0)
    assert dearer["idle_cost"] == pytest.approx(3.0 * (40 - 8) / 6, abs=1e-2)
    assert dearer["held_cost"] == pytest.approx(20.0, abs=1e-2)


def of_size(gpus: int, active: int, high: int, **peak: int) -> dict[str, Any]:
    return {"gpus": gpus, "models": 15, "assumed": 0, "active": active, "values": [1, 1, 1, 2, 3, high], **peak}


def test_a_slot_of_four_gpus_costs_four_gpu_hours_an_hour() -> None:
    told(6.0, 5, 7, by_size=[of_size(1, 3, 5, peak=4), of_size(4, 2, 3, peak=4)])
    policy.change(gpu_hour_price=2.0, actor=ACTOR)
    [day] = spent(2, T0 + 26 * HOUR)["days"]
    assert (day["used_h"], day["held_h"], day["static_h"]) == tuple(round(n / 6, 3) for n in (5, 5 + 4, 4 + 4))
    assert (day["used_gpu_h"], day["held_gpu_h"], day["static_gpu_h"]) == tuple(
        round(n / 6, 3) for n in (3 + 8, 5 + 16, 4 + 16)
    )
    assert day["short"] == 1, "a slot of one GPU that is free holds no model of four"
    assert (day["held_cost"], day["idle_cost"]) == pytest.approx((7.0, 20 / 6), abs=1e-3)
    told(7.0, 5, 7, by_size=[of_size(1, 3, 5), of_size(4, 2, 3)])
    assert spent(2, T0 + 26 * HOUR)["total"]["short"] == 1, "without a peak by size what was active stands for it"


def test_without_forecasts_nothing_was_spent() -> None:
    found = spent(14, T0)
    assert found["days"] == [] and found["total"]["windows"] == 0 and found["total"]["covered"] == [None, None]
