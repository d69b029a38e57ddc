"""Many models that fall silent at once are held for a while; what habits explain is not."""

from __future__ import annotations

import numpy as np
import pytest

from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.falls import LONGEST_S, Falls
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.forecast.history import History, Seen
from controlplane.domain.forecast.methods import make
from controlplane.domain.forecast.tracker import whole

LEVELS = np.array([0.5, 0.95, 0.99])
FALL = 2 * DAY_S + 12 * 3600.0
HOUR = 3600.0


def world(back_s: float | None, models: int = 40, days: float = 3.0, fall: float = FALL) -> Requests:
    """Models that never rest, half of which fall silent together, and are back after that time; None: never."""
    moments = np.arange(0.0, days * DAY_S, 100.0)
    gone = (moments >= fall) & (moments < (np.inf if back_s is None else fall + back_s))
    model = np.concatenate([np.full(len(moments), place) for place in range(models)])
    at = np.tile(moments, models)
    kept = ~(np.tile(gone, models) & (model >= models // 2))
    return Requests.of(tuple(f"m{place}" for place in range(models)), model[kept], at[kept])


def floors(requests: Requests, horizon_s: float = 600.0, outages: tuple[Outage, ...] = ()) -> dict[float, Floats]:
    """By hours since the fall."""
    history = History(requests, 300.0, horizon_s, 0.0, 3 * DAY_S, outages=outages)
    falls = Falls()
    return {
        round((float(moment) - FALL) / HOUR, 2): falls.floor(history.seen_at(place), LEVELS)
        for place, moment in enumerate(history.moments)
    }


def test_who_fell_silent_together_is_held_as_long_as_a_return_is_likelier_than_what_a_level_may_miss() -> None:
    found = floors(world(None))
    assert not found[0.0].any(), "nobody is missing yet"
    assert found[0.17].tolist() == [40.0, 40.0, 40.0]
    assert found[1.0].tolist() == [0.0, 40.0, 40.0], "gone for an hour, back within ten minutes: one in seven"
    assert found[4.0].tolist() == [0.0, 0.0, 40.0], "one in twenty-five"
    assert not found[LONGEST_S / HOUR + 0.5].any(), "by then they left for good"


def test_once_they_are_back_nothing_is_held_for_them() -> None:
    found = floors(world(2 * HOUR))
    assert found[1.83][2] == 40.0 and not found[2.33].any()


def test_what_is_shut_down_a_few_at_a_time_is_no_common_fall() -> None:
    requests = world(None, models=8)
    assert all(not one.any() for one in floors(requests).values()), "four of eight"


def test_models_that_seldom_rest_and_leave_at_their_usual_pace_are_none() -> None:
    random, rows = np.random.default_rng(3), []
    for place in range(200):
        at = 0.0
        while at < 3 * DAY_S:
            stay = random.exponential(4 * HOUR)
            moments = np.arange(at, min(at + stay, 3 * DAY_S), 100.0)
            rows.append(np.stack([np.full(len(moments), place), moments]))
            at += stay + random.exponential(HOUR)
    model, at_s = np.concatenate(rows, axis=1)
    requests = Requests.of(tuple(f"m{place}" for place in range(200)), model.astype(np.int64), at_s)
    assert all(not one.any() for one in floors(requests).values())


def test_jobs_that_begin_and_end_together_by_the_clock_are_none() -> None:
    moments = np.arange(0.0, 3 * DAY_S, HOUR)
    model = np.repeat(np.arange(60), len(moments))
    requests = Requests.of(tuple(f"m{place}" for place in range(60)), model, np.tile(moments, 60))
    assert all(not one.any() for one in floors(requests).values())


def test_an_outage_of_the_record_is_no_fall_of_the_models() -> None:
    gap = Outage(FALL - 60.0, FALL + 2 * HOUR)
    assert all(not one.any() for one in floors(world(2 * HOUR), outages=(gap,)).values())


@pytest.mark.parametrize("horizon_s", [600.0, 3600.0])
def test_the_default_covers_the_return_and_lets_go_of_who_stays_away(horizon_s: float) -> None:
    def told(back_s: float | None) -> tuple[History, Floats]:
        history = History(world(back_s, days=4.0), 300.0, horizon_s, 0.0, 4 * DAY_S)
        (best,) = make(["best"], (0.95, 0.99))
        return history, np.array([best.tell(history.seen_at(place)) for place in range(len(history.moments))])

    history, back = told(2 * HOUR)
    since = round((FALL + 1800.0) / 600.0)
    assert history.active[since] == 20 and whole(back[since : since + 9, 1]).min() >= 40, "all are held for"
    _, never = told(None)
    assert never[round((FALL + DAY_S) / 600.0), 1] < 30


def test_nothing_that_comes_later_changes_what_is_held() -> None:
    for place in range(round(FALL / 600.0), round(FALL / 600.0) + 12):
        asked = []
        for back_s in (2 * HOUR, None):
            falls, history = Falls(), History(world(back_s), 300.0, 600.0, 0.0, 3 * DAY_S)
            for at in range(place - 3, place + 1):
                asked.append(falls.floor(Seen(history, at), LEVELS).tolist())
        assert asked[:4] == asked[4:]
