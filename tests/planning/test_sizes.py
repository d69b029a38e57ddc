"""Sizes of a deployment, from what was asked of it and what is known of engines on the fleet's GPUs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet.errors import FleetError, NotFound
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import RequestRecord
from controlplane.planning import profiles, sizes
from controlplane.planning.past_lengths import replayed
from controlplane.planning.sizes import AGAIN_S, Question, answer
from controlplane.planning.uploads import import_sent
from tests.factories import make_deployment, make_model, make_node, make_user
from tests.planning import profile_tables as tables

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")
GPU = "Simulated H100 80GB"


@pytest.fixture
def chat() -> Deployment:
    """Sixteen GPUs on two nodes, and a profile of four together."""
    for name in ("alpha", "beta"):
        make_node(name, gpus=8)
    return make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)


def asked(count: int, rate: float) -> None:
    dice = np.random.default_rng(4)
    at = timezone.now() - timedelta(seconds=count / rate + 5)
    for gap in dice.exponential(1 / rate, count):
        at += timedelta(seconds=float(gap))
        RequestRecord.objects.create(
            at=at, request_id="r", deployment="chat", kind="chat", outcome="ok", status=200, path="aggregated",
            prompt_tokens=int(dice.integers(200, 1800)), completion_tokens=int(dice.integers(20, 200)), total_ms=900.0,
        )  # fmt: skip


def known(gpu: str = GPU) -> None:
    profiles.import_table(tables.splitwise(gpu="h100"), actor=ACTOR, gpus={"h100": gpu})


def test_both_kinds_are_sized_by_the_requests_of_late_and_the_profile(chat: Deployment) -> None:
    known()
    asked(150, 5.0)
    said = answer(Question(chat.pk))
    assert (said["demand"]["requests"], said["demand"]["made_up"]) == (150, False)
    assert said["demand"]["rate_per_s"] == pytest.approx(5.0, rel=0.3)
    [offer] = said["offers"]
    assert (offer["source"], offer["tp"], offer["gpus"]) == ("imported", 4, 16)
    for kind in ("aggregated", "disaggregated"):
        assert said[kind]["met"] >= 0.95 and said[kind]["ttft_ms"] <= 2000 and said[kind]["itl_ms"] <= 60
        assert said[kind]["gpus"] % 4 == 0 and said[kind]["gpus"] <= 16
    assert said["disaggregated"]["prefill"]["max_num_batched_tokens"] == offer["knee_tokens"]
    assert said["aggregated"]["prefill_per_decode"] is None
    prefill, decode = (said["disaggregated"][phase]["count"] for phase in ("prefill", "decode"))
    assert 0 < said["disaggregated"]["prefill_per_decode"] < (prefill + 1) / max(1, decode - 1)
    assert said["best"] == "aggregated" and not said["missing"] and said["now"]["decode"] == 0


def test_more_is_asked_for_than_there_is_and_what_is_missing_is_told(chat: Deployment) -> None:
    known()
    said = answer(Question(chat.pk, rate_per_s=60.0, isl=1500, osl=100, headroom=1.0))
    assert said["best"] is None and said["demand"]["made_up"]
    assert said["wanted"]["met"] >= 0.95 and said["missing"][GPU] >= 4


def test_of_two_kinds_of_gpus_the_cheaper_one_is_taken_when_prices_are_known(chat: Deployment) -> None:
    known()
    for gpu in make_node("gamma", gpus=8).gpus.all():
        gpu.name = "Other GPU"
        gpu.save()
    known("Other GPU")
    question = Question(chat.pk, rate_per_s=2.0, isl=800, osl=50)
    assert answer(question, {"gamma": 1.0})["aggregated"]["price_per_hour"] is None, "of the others no price is known"
    for price, gpu in ((1.0, "Other GPU"), (3.0, GPU)):
        said = answer(question, {"alpha": 2.0, "beta": 2.0, "gamma": price})["aggregated"]
        assert (said["decode"]["gpu"], said["price_per_hour"]) == (gpu, 4 * min(price, 2.0))


def test_a_rate_that_grows_never_takes_fewer_gpus(chat: Deployment) -> None:
    known()
    sizes = []
    for rate in (1.0, 20.0, 45.0):
        said = answer(Question(chat.pk, rate_per_s=rate, isl=800, osl=50, headroom=1.0))
        sizes.append((said["aggregated"] or said["wanted"])["gpus"])
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]


def test_without_a_profile_a_roofline_is_offered_with_a_warning() -> None:
    for gpu in make_node("gamma", gpus=2).gpus.all():
        gpu.name = "NVIDIA H100 80GB HBM3"
        gpu.save()
    chat = make_deployment("chat", model=make_model("smollm2"), slo_ttft_ms=500, slo_itl_ms=40)
    said = answer(Question(chat.pk, rate_per_s=2.0, isl=500, osl=50))
    assert {(offer["source"], offer["profile"]) for offer in said["offers"]} == {("roofline", None)}
    assert {offer["tp"] for offer in said["offers"]} == {1, 2} and said["best"] == "aggregated"
    assert any("roofline alone" in note for note in said["notes"])


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "Nothing is known of how fast"),
        ({"rate_per_s": None, "isl": None, "osl": None}, "too few to size by"),
        ({"osl": None}, "go together"),
    ],
)
def test_what_cannot_be_sized_is_refused_in_words(chat: Deployment, question: dict[str, Any], said: str) -> None:
    with pytest.raises(FleetError, match=said):
        answer(Question(chat.pk, **{"rate_per_s": 1.0, "isl": 100, "osl": 10, **question}))


def test_a_deployment_without_aims_is_asked_for_them(chat: Deployment) -> None:
    Deployment.objects.update(slo_itl_ms=None)
    with pytest.raises(FleetError, match="no aim"):
        answer(Question(chat.pk, rate_per_s=1.0, isl=100, osl=10))
    with pytest.raises(NotFound):
        answer(Question(0))


def test_an_imported_history_sizes_where_it_tells_tokens(chat: Deployment) -> None:
    known()
    now = timezone.now().timestamp()
    rows = [f"{now - 900 + 2 * n:.1f},chat,1,{800 + n},{80 + n % 5}" for n in range(400)]
    for columns, cut in (("t_s,model,duration_s", 3), ("t_s,model,duration_s,input_tokens,output_tokens", 5)):
        log = "\n".join([columns, *(",".join(row.split(",")[:cut]) for row in rows)])
        import_sent("log.csv", log.encode(), shift_to_now=False, actor=ACTOR, now=now)
        if cut == 3:
            with pytest.raises(FleetError, match="too few to size by"):
                answer(Question(chat.pk))
    said = answer(Question(chat.pk))
    assert (said["demand"]["requests"], said["demand"]["made_up"]) == (400, False)
    assert said["demand"]["rate_per_s"] == pytest.approx(0.5, rel=0.05)
    assert (said["demand"]["isl"], said["demand"]["osl"]) == (pytest.approx(999.5, abs=1), pytest.approx(82, abs=1))
    assert said["aggregated"]["met"] >= 0.95
    assert len(replayed("chat", now - 900, now, 100)) == 100, "the newest"


def test_one_answer_is_found_at_a_time_and_others_are_told_when_to_come_again(
    chat: Deployment, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    known()
    client.force_login(make_user("viewer"))
    path = f"/api/v1/capacity/sizing?deployment={chat.pk}&rate_per_s=2&isl=500&osl=50"
    search, within = sizes.size_search.find, []

    def find(*args: Any, **kwargs: Any) -> Any:
        within.append(client.get(path))
        return search(*args, **kwargs)

    monkeypatch.setattr(sizes.size_search, "find", find)
    assert client.get(path).status_code == 200
    [second] = within
    assert (second.status_code, second["Retry-After"]) == (429, str(AGAIN_S))
    assert second.json()["type"].endswith("throttled") and "Other sizes" in second.json()["detail"]
    monkeypatch.setattr(sizes.size_search, "find", search)
    assert client.get(path).status_code == 200, "whoever failed to get in holds nothing up"


def test_an_answer_that_fails_holds_no_other_up(chat: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    known()
    question = Question(chat.pk, rate_per_s=2.0, isl=500, osl=50)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(sizes.size_search, "find", lambda *args, **kwargs: 1 / 0)
        answer(question)
    assert answer(question)["best"]
