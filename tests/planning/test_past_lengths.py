"""Lengths of requests from gateways' minutes, in which a request's beginning and its tokens may lie apart."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.gateway.models import DemandMinute
from controlplane.planning import keeping, lengths
from controlplane.planning.past_lengths import replayed
from tests.planning.test_forecasting import T0

pytestmark = pytest.mark.django_db


def minute(at: float, arrivals: int = 0, prompt: int = 0, answer: int = 0) -> None:
    DemandMinute.objects.create(
        deployment="chat", minute=datetime.fromtimestamp(T0 + at, UTC), arrivals=arrivals, prompt_tokens=prompt,
        completion_tokens=answer,
    )  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_requests_whose_answers_end_in_a_later_minute_count_and_are_as_long_as_they_were(packed: bool) -> None:
    """Ten requests of 400 and 100 tokens each other minute, of which seven end in the next; and of 800 and 300 in the
    second hour."""
    for hour, (prompt, answer) in enumerate([(400, 100), (800, 300)]):
        for place in range(20):
            at = 3600 * hour + 120 * place
            minute(at, 10, 3 * prompt, 3 * answer)
            minute(at + 60, 0, 7 * prompt, 7 * answer)
    if packed:
        assert keeping.pack_minutes(T0 + 5 * 86_400) == 80
    trace = replayed("chat", T0, T0 + 7200, 1000)
    assert len(trace) == 400
    assert trace.isl.tolist() == [400] * 200 + [800] * 200 and trace.osl.tolist() == [100] * 200 + [300] * 200
    began = trace.at_ms - 1000.0 * T0
    assert began[0] == 0.0 and (began % 120_000 < 60_000).all(), "in the minutes in which they began"
    newest = replayed("chat", T0, T0 + 7200, 150)
    assert (len(newest), set(newest.isl.tolist())) == (150, {800})


def test_an_hour_of_few_requests_has_the_mean_of_all_and_takes_no_tokens_of_others_for_its_own() -> None:
    """Eight long answers begin before the hour and end in it, beside one that is short."""
    minute(3500, 8)
    minute(3660, 1, 8 * 1000 + 100, 8 * 500 + 10)
    trace = replayed("chat", T0, T0 + 7200, 1000)
    assert trace.isl.tolist() == [900] * 9 and trace.osl.tolist() == [446] * 9


def test_what_tells_no_tokens_tells_no_lengths() -> None:
    minute(0, 9)
    minute(60, 9, 9000, 0)
    assert len(replayed("chat", T0, T0 + 7200, 1000)) == 0
    assert len(replayed("other", T0, T0 + 7200, 1000)) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_requests_that_nobody_answered_make_none_shorter(packed: bool) -> None:
    """Nobody serves for 40 minutes of each hour; then 20 requests are answered."""
    for hour in range(12):
        for place in range(40):
            minute(3600 * hour + 60 * place, 50)
        for place in range(45, 55):
            minute(3600 * hour + 60 * place, 2, 2 * 1000, 2 * 200)
    if packed:
        assert keeping.pack_minutes(T0 + 5 * 86_400) == 600
    trace = replayed("chat", T0, T0 + 3600, 1500)
    assert trace.isl.tolist() == [1000] * 20 and trace.osl.tolist() == [200] * 20
    told = lengths.coming("chat", T0 + 12 * 3600)
    assert told.isl is not None and told.osl is not None and (told.isl.now, told.osl.now) == (1000.0, 200.0)


def test_one_of_few_that_failed_does_not_take_the_next_for_failed() -> None:
    for place in range(10):
        minute(3600 * place, 1)
        minute(3600 * place + 1800, 1)
        minute(3600 * place + 1920, 0, 1000, 200)
    assert replayed("chat", T0, T0 + 36_000, 1000).isl.tolist() == [1000] * 10


def test_what_has_not_ended_yet_is_left_out() -> None:
    for place in range(10):
        minute(60 * place, 2, 2 * 1000 if place < 5 else 0, 2 * 200 if place < 5 else 0)
    assert replayed("chat", T0, T0 + 600, 1000).isl.tolist() == [1000] * 10
