"""Methods compared on the installation's own history: asked for, done once, told, and acted upon."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.forecast.methods import DEFAULT, NAMES
from controlplane.fleet.errors import Conflict
from controlplane.planning import comparing, keeping
from controlplane.planning.forecasting import Forecasting, Pace
from controlplane.planning.models import Comparison, Forecast
from controlplane.web.capacity_methods import verdict
from tests.domain.forecast.worlds import fleet
from tests.factories import make_user

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
T0 = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
NOW = T0 + 1.2 * 86_400


def remember(models: int = 6) -> None:
    world = fleet(models, 1.2)
    moved = replace(world, at=world.at + T0, until=world.until + T0)
    keeping.save_import(moved, actor=ACTOR, now=NOW + 60)


def result(windows: int = 400, **equal: float) -> dict[str, Any]:
    """As a comparison's, with what each method held at equal coverage."""
    by_level = {"0.95": 0.95, "0.99": 0.99}
    return {
        "windows": windows,
        "judged_hours": windows / 6,
        "methods": {
            name: {
                "name": name, "coverage": by_level, "mean_reserve": {"0.95": held - 1, "0.99": held},
                "mean_reserve_at_equal_coverage": {"0.95": held - 1, "0.99": held}, "cold_per_activation": by_level,
                "held_over_used": by_level, "coverage_busy": by_level, "pinball": by_level,
                "slot_hours_held": by_level, "slot_hours_used": 1.0, "ms_per_decision": 1.0,
            }
            for name, held in {**dict.fromkeys(NAMES, 20.0), **equal}.items()
        },
    }  # fmt: skip


def keep(found: dict[str, Any]) -> Comparison:
    at = datetime.fromtimestamp(NOW, UTC)
    return Comparison.objects.create(asked_at=at, asked_by="daily", ended_at=at, result=found, keep_alive_s=300)


def test_all_methods_are_judged_on_the_last_half_of_a_short_record() -> None:
    remember()
    row = comparing.compare_if_due(NOW)
    assert row is not None and row.asked_by == "daily" and comparing.state_of(row, NOW) == "done"
    found = Comparison.objects.get().result
    assert set(found["methods"]) == {*NAMES, "static", "reactive", "clairvoyant"}
    assert 60 <= found["windows"] <= 90, "half of 1.2 days, by ten minutes"
    for name in NAMES:
        assert 0.5 < found["methods"][name]["coverage"]["0.99"] <= 1.0
    assert comparing.compare_if_due(NOW + 60) is None, "once a day"
    assert comparing.chosen() == DEFAULT, "so few windows choose nothing"
    assert "too few" in verdict(found)


def test_it_is_asked_for_once_and_taken_on_again_when_its_worker_is_lost() -> None:
    row = comparing.ask(actor=ACTOR, now=NOW)
    with pytest.raises(Conflict, match="already"):
        comparing.ask(actor=ACTOR, now=NOW)
    assert comparing.state_of(row, NOW) == "asked" and AuditEvent.objects.get().verb == "compare-methods"
    beat = datetime.fromtimestamp(NOW, UTC)
    Comparison.objects.update(beat_at=beat)
    row.refresh_from_db()
    assert comparing.compare_if_due(NOW + 30) is None and comparing.state_of(row, NOW + 30) == "running"
    assert comparing.state_of(row, NOW + 300) == "lost"
    done = comparing.compare_if_due(NOW + 300)
    assert done is not None and done.pk == row.pk
    assert comparing.state_of(done, NOW) == "failed" and "too little to compare" in done.error
    comparing.ask(actor=ACTOR, now=NOW + 400)


@pytest.mark.parametrize(
    ("found", "used", "words"),
    [
        (result(best=20.0, ar=21.0), "best", "the best of the others, last, 20.0"),
        (result(best=20.0, ar=19.5), "best", "less than 5% better"),
        (result(best=20.0, ar=18.0), "ar", "In use: ar, since on this history it held 18.0"),
        (result(100, best=20.0, ar=10.0), "best", "too few to choose"),
    ],
)
def test_another_method_forecasts_only_where_it_did_clearly_better(found: Any, used: str, words: str) -> None:
    keep(found)
    assert comparing.chosen() == used and words in verdict(found)


def test_the_method_that_was_chosen_forecasts_from_then_on() -> None:
    remember()
    teller = Forecasting({600: Pace(600.0, 0)})
    teller.tick(NOW)
    assert "best" in Forecast.objects.latest("at").method
    keep(result(best=20.0, last=10.0))
    teller.tick(NOW + 600)
    assert "last" in Forecast.objects.latest("at").method


def test_the_page_and_rest_tell_and_ask(client: Client) -> None:
    remember()
    client.force_login(make_user("operator"), backend="django.contrib.auth.backends.ModelBackend")
    assert "Once a day" in client.get("/capacity/methods").content.decode()
    assert "it begins within a minute" in client.post("/capacity/compare", follow=True).content.decode()
    assert "every 4s" in client.get("/capacity/methods").content.decode()
    again = client.post("/api/v1/capacity/comparisons", content_type="application/json")
    assert again.status_code == 409
    Comparison.objects.all().delete()
    keep(result(best=20.0, ar=18.0))
    page = client.get("/capacity/methods").content.decode()
    assert "In use: ar" in page and "every 4s" not in page
    told = client.get("/api/v1/capacity/comparisons").json()
    assert (told["method"], told["newest"]["state"], len(told["last_result"]["methods"])) == ("ar", "done", len(NAMES))
    Comparison.objects.create(asked_at=datetime.now(UTC), asked_by="x", beat_at=datetime.now(UTC) - timedelta(hours=1))
    assert "was cut off" in client.get("/capacity/methods").content.decode()
