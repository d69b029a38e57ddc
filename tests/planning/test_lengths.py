"""Lengths to come, from a deployment's history, and what sizing makes of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.test import Client

from controlplane.domain.replay import Trace
from controlplane.gateway.models import DemandMinute
from controlplane.planning import lengths
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
    assert told.isl.now == 800.0 and told.isl.at(0.95) >= 800.0 and told.osl.at(0.95) >= 200.0
    trace = Trace.of(np.arange(20.0), [400] * 20, [300] * 20)
    longer = lengths.lengthened(trace, told, 0.95)
    assert longer.isl.mean() == pytest.approx(told.isl.at(0.95), abs=1.0)
    assert longer.osl.mean() == 300.0, "never shorter than what was asked"


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
