"""Lengths to come, from a deployment's history, and what sizing makes of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.test import Client

from controlplane.domain.replay import Trace
from controlplane.gateway.models import DemandMinute
from controlplane.planning import keeping, lengths
from controlplane.planning.sizes import Question, answer
from controlplane.planning.uploads import import_sent
from tests.factories import make_deployment, make_model, make_node, make_user
from tests.planning.test_sizes import ACTOR, asked, known

pytestmark = pytest.mark.django_db


def growing(name: str, days: int, now: float) -> None:
    """Each hour ten requests, of 400 tokens and 100 until the last six hours, and twice that since."""
    hour = datetime.fromtimestamp(now - now % 3600, UTC)
    rows = []
    for back in range(1, 24 * days + 1):
        factor = 2 if back <= 6 else 1
        rows.append(
            DemandMinute(
                deployment=name, minute=hour - timedelta(hours=back), arrivals=10, prompt_tokens=4000 * factor,
                completion_tokens=1000 * factor,
            )
        )  # fmt: skip
    DemandMinute.objects.bulk_create(rows)


def test_what_grew_lately_is_told_and_requests_are_made_as_long() -> None:
    now = time.time()
    growing("chat", 3, now)
    told = lengths.coming("chat", now)
    assert told.isl is not None and told.osl is not None
    assert told.isl.now == 800.0
    assert 799.9 <= told.isl.at(0.95) <= 1600.1 and 199.9 <= told.osl.at(0.95) <= 400.1, "and at most twice any hour"
    trace = Trace.of(np.arange(20.0), [400] * 20, [300] * 20)
    longer = lengths.lengthened(trace, told, 0.95)
    assert longer.isl.mean() == pytest.approx(told.isl.at(0.95), abs=1.0)
    assert longer.osl.mean() == 300.0, "never shorter than what was asked"


def split(now: float, days: int = 3) -> None:
    """Each hour ten answers of 100 tokens to prompts of 400, each ending two minutes after it began."""
    hour = datetime.fromtimestamp(now - now % 3600, UTC)
    rows = []
    for back in range(1, 24 * days + 1):
        for one in range(10):
            at = hour - timedelta(hours=back) + timedelta(minutes=4 * one)
            rows.append(DemandMinute(deployment="chat", minute=at, arrivals=1))
            ended = {"prompt_tokens": 400, "completion_tokens": 100}
            rows.append(DemandMinute(deployment="chat", minute=at + timedelta(minutes=2), arrivals=0, **ended))
    DemandMinute.objects.bulk_create(rows)


@pytest.mark.parametrize("packed", [False, True])
def test_answers_that_end_in_a_later_minute_than_they_began_in_count(packed: bool) -> None:
    now = time.time()
    split(now, days=6)
    while packed and keeping.pack_minutes(now):
        pass
    told = lengths.coming("chat", now)
    assert told.isl is not None and told.osl is not None and told.isl.windows == 6 * 24 - 11
    assert (told.isl.now, told.osl.now) == (400.0, 100.0) and told.osl.at(0.95) == pytest.approx(100.0)


def test_imported_bursts_without_tokens_are_left_out() -> None:
    now = time.time()
    first = now - now % 86_400 - 2 * 86_400
    rows = [
        f"chat,{first + 3600 * hour + 60 * one},{first + 3600 * hour + 60 * one},2,{told}"
        for hour in range(40) for one, told in enumerate(["1200,100"] * 5 + ["0,0"] * 5)
    ]  # fmt: skip
    head = "model,from_s,until_s,requests,input_tokens,output_tokens\n"
    import_sent("log", (head + "\n".join(rows)).encode(), shift_to_now=False, actor=ACTOR, now=now)
    told = lengths.coming("chat", now)
    assert told.isl is not None and told.osl is not None and (told.isl.now, told.osl.now) == (600.0, 50.0)


def test_no_request_becomes_longer_than_an_engine_takes() -> None:
    trace = Trace.of(np.arange(4.0), [60, 60, 600, 9000], [10, 100, 100, 100])
    longer = trace.longer(300.0, 10.0, most=8192)
    assert longer.isl.tolist() == [8182, 8092, 8092, 9000], "together with the answer; what was longer stays so"
    assert (longer.isl + longer.osl).tolist() == [8192, 8192, 8192, 9100]
    unknown = Trace.of(np.arange(3.0), [60, 60, 6000], [10, 10, 10]).longer(10.0, 3.0)
    assert unknown.isl.tolist() == [600, 600, 20_400], "as the mean becomes"
    assert unknown.osl.tolist() == [30, 30, 30]
    assert Trace.of([], [], []).longer(2.0, 2.0).isl.tolist() == []


def test_the_longest_request_is_as_the_engines_arguments_say_or_the_model() -> None:
    model = make_model("llama")
    assert lengths.longest(make_deployment("plain", model=model)) == 8192
    assert lengths.longest(make_deployment("given", model=model, engine_args=["--max-model-len=2k"])) == 2000
    apart = {"prefill_args": ["--max-model-len", "1000"], "decode_args": ["--max-model-len", "4000"]}
    assert lengths.longest(make_deployment("apart", model=model, **apart)) == 4000
    assert lengths.longest(make_deployment("auto", model=model, engine_args=["--max-model-len=auto"])) == 8192
    assert lengths.longest(make_deployment("none", model=make_model("bare", facts={}))) is None


def test_long_batches_on_record_do_not_make_a_replay_of_lengths_no_engine_takes() -> None:
    make_node("alpha", gpus=8)
    chat = make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    known()
    asked(40, 5.0)
    growing("chat", 4, time.time())
    batches = DemandMinute.objects.order_by("-minute").values_list("pk", flat=True)[::12]
    DemandMinute.objects.filter(pk__in=batches).update(prompt_tokens=9_000_000, completion_tokens=200_000)
    said = answer(Question(chat.pk, lengths_level=0.99))
    assert max(said["lengths"]["isl"]["mean"].values()) <= 900_000.0
    assert said["lengths"]["isl"]["requests"]["0.99"] <= 8192


def test_with_eleven_hours_on_record_it_is_null_how_often_what_was_told_held(client: Client) -> None:
    make_node("alpha", gpus=8)
    chat = make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    known()
    asked(40, 5.0)
    growing("chat", 3, time.time())
    newest = DemandMinute.objects.order_by("-minute").values_list("pk", flat=True)[:11]
    DemandMinute.objects.exclude(pk__in=list(newest)).delete()
    client.force_login(make_user("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    said = client.get(f"/api/v1/capacity/sizing?deployment={chat.pk}").json()["lengths"]["isl"]
    assert said["windows"] == 0 and set(said["covered"].values()) == {None} and said["mean"]["0.95"] > 0


def test_of_another_model_or_without_tokens_nothing_is_told() -> None:
    now = time.time()
    growing("chat", 3, now)
    DemandMinute.objects.update(prompt_tokens=0)
    for name in ("chat", "other"):
        found = lengths.coming(name, now)
        assert found.isl is None and found.osl is None
    trace = Trace.of([0.0, 1.0], [5, 6], [7, 8])
    assert lengths.lengthened(trace, lengths.Forecast(None, None), 0.99).isl.tolist() == [5, 6]


def test_an_imported_history_tells_lengths_too() -> None:
    now = time.time()
    first = now - now % 86_400 - 2 * 86_400
    rows = [f"{first + 3600 * hour + 60 * one},chat,2,600,50" for hour in range(40) for one in range(8)]
    import_sent(
        "log", ("t_s,model,duration_s,input_tokens,output_tokens\n" + "\n".join(rows)).encode(), shift_to_now=False,
        actor=ACTOR, now=now,
    )  # fmt: skip
    told = lengths.coming("chat", now).isl
    assert told is not None and told.now == pytest.approx(600.0) and told.windows > 20


def test_sizing_tells_what_it_was_made_for_and_takes_no_fewer_gpus_when_it_is_to_be_surer(client: Client) -> None:
    for name in ("alpha", "beta"):
        make_node(name, gpus=8)
    chat = make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    known()
    asked(150, 5.0)
    growing("chat", 3, time.time())
    DemandMinute.objects.update(prompt_tokens=40_000, completion_tokens=3000)
    plain = answer(Question(chat.pk, lengths_level=0.5))
    surer = answer(Question(chat.pk, lengths_level=0.99))
    assert plain["demand"]["isl"] <= surer["demand"]["isl"] and surer["demand"]["isl"] == pytest.approx(4000, rel=0.01)
    assert surer["lengths"]["isl"]["mean"]["0.99"] == pytest.approx(4000, rel=0.01)
    assert surer["lengths"]["isl"]["requests"]["0.5"] > 2000 and surer["lengths"]["level"] == 0.99
    gpus = [min(one[kind]["gpus"] for kind in ("aggregated", "disaggregated", "wanted") if one[kind])
            for one in (plain, surer)]  # fmt: skip
    assert gpus[0] <= gpus[1]
    client.force_login(make_user("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    said = client.get(f"/api/v1/capacity/sizing?deployment={chat.pk}&lengths_level=0.9").json()
    assert said["lengths"]["level"] == 0.9 and set(said["lengths"]["osl"]["covered"]) == {"0.5", "0.9", "0.95", "0.99"}
    made_up = answer(Question(chat.pk, rate_per_s=2.0, isl=500, osl=50))
    assert made_up["lengths"] is None
    refused = client.get(f"/api/v1/capacity/sizing?deployment={chat.pk}&lengths_level=1.5")
    assert refused.status_code == 400
