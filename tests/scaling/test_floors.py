"""How many engines what is to come takes: by the profile of its engines, and the requests of late."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.costs.models import NodePrice
from controlplane.domain import size_search
from controlplane.domain.sizing import Slo
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import DemandMinute, RequestRecord
from controlplane.planning import profiles, sizes
from controlplane.planning.offers import offers
from controlplane.scaling import floors
from controlplane.scaling.floors import Floor, Sure, When
from controlplane.scaling.kinds import Other, basis
from controlplane.scaling.models import LaneLook
from tests.factories import make_deployment, make_gpus, make_model, make_node, make_partition, make_ready
from tests.planning import profile_tables as tables
from workers.contract import Role

pytestmark = pytest.mark.django_db
GPU = "Simulated H100 80GB"
BASIS = basis(2000, 60, 0.95, apart=True)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def chat() -> Deployment:
    """A pair of engines of four GPUs each, measured, on a node with two more partitions of that size."""
    node = make_node("alpha")
    row = make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    for role in ("prefill", "decode"):
        make_ready(make_partition(node, gpus=make_gpus(node, 4), deployment=row, role=role))
    for _ in range(2):
        make_partition(node, gpus=make_gpus(node, 4))
    profiles.import_table(tables.splitwise(gpu="h100"), actor=Actor.system("test"), gpus={"h100": GPU})
    return row


def asked(now: datetime, *, rate: float, minutes: int = 60) -> None:
    dice = np.random.default_rng(4)
    end = now.replace(second=0, microsecond=0)
    DemandMinute.objects.bulk_create(
        DemandMinute(deployment="chat", minute=end - timedelta(minutes=ago), arrivals=int(60 * rate))
        for ago in range(1, minutes + 1)
    )
    RequestRecord.objects.bulk_create(
        RequestRecord(
            at=now - timedelta(seconds=float(ago)), request_id="r", deployment="chat", kind="chat", outcome="ok",
            status=200, path="two_step", prompt_tokens=int(dice.integers(200, 1800)),
            completion_tokens=int(dice.integers(20, 200)), total_ms=900.0,
        )
        for ago in dice.random(300) * 300 / rate
    )  # fmt: skip


def floor(
    row: Deployment, now: datetime, looks: dict[str, LaneLook] | None = None, lengths_level: float = 0.95
) -> Floor:
    return floors.floor(row, looks or {}, Sure(0.95, lengths_level), When.at(now))


def test_it_is_sized_in_engines_such_as_it_has_by_a_replay_at_the_rate_to_come(chat: Deployment, now: datetime) -> None:
    asked(now, rate=2.0)
    few = floor(chat, now)
    assert few.counts == {Role.PREFILL: 1, Role.DECODE: 1}
    assert "1 x TP4 prefill" in few.why
    DemandMinute.objects.update(arrivals=60 * 40)
    many = floor(chat, now)
    assert many.coming.rate == pytest.approx(40.0)
    assert many.counts is None or sum(many.counts.values()) > 2


def test_it_holds_for_ten_minutes_while_the_rate_stays(chat: Deployment, now: datetime) -> None:
    asked(now, rate=2.0)
    look = LaneLook(
        deployment=chat, role="decode", at=now, count=1, ready=1, wanted=1, kind="keep", why="", floor=7,
        floor_why="found before", floor_at=now - timedelta(minutes=9), rate_coming=2.0,
    )  # fmt: skip
    assert floor(chat, now, {"decode": look}).counts == {Role.DECODE: 7}
    look.rate_coming = 1.0
    assert floor(chat, now, {"decode": look}).counts == {Role.PREFILL: 1, Role.DECODE: 1}
    look.rate_coming, look.floor_at = 2.0, now - timedelta(minutes=11)
    assert floor(chat, now, {"decode": look}).counts == {Role.PREFILL: 1, Role.DECODE: 1}


def test_without_requests_there_is_no_need_and_without_an_objective_no_answer(chat: Deployment, now: datetime) -> None:
    assert floor(chat, now).counts == {}
    asked(now, rate=2.0)
    chat.slo_itl_ms = None
    assert floor(chat, now).counts is None
    assert "no objective" in floor(chat, now).why


def test_its_requests_are_as_long_as_the_policy_would_have_them(chat: Deployment, now: datetime) -> None:
    """An hour in ten had answers of 900 tokens, the others of 100."""
    asked(now, rate=8.0)
    hour = now.replace(minute=0, second=0, microsecond=0)
    DemandMinute.objects.bulk_create(
        DemandMinute(
            deployment="chat", minute=hour - timedelta(hours=back), arrivals=120, prompt_tokens=120 * 1000,
            completion_tokens=120 * (900 if back % 10 == 5 else 100),
        )
        for back in range(2, 160)
    )  # fmt: skip
    surer, plain = (size(floor(chat, now, lengths_level=level)) for level in (0.99, 0.5))
    assert surer > plain


def size(found: Floor) -> int:
    assert found.counts is not None, found.why
    return sum(found.counts.values())


@pytest.mark.parametrize(("ampere", "chosen"), [("1", "Simulated A100 80GB"), ("3", GPU)])
def test_one_without_engines_is_counted_in_the_kind_of_gpu_that_costs_least(
    now: datetime, ampere: str, chosen: str
) -> None:
    row = make_deployment("chat", model=make_model("llama"), slo_ttft_ms=2000, slo_itl_ms=60)
    for name, gpu, price in (("hopper", GPU, "2"), ("ampere", "Simulated A100 80GB", ampere)):
        node = make_node(name)
        NodePrice.objects.create(node=node, since=now - timedelta(days=9), per_gpu_hour=Decimal(price))
        for _ in range(2):
            make_partition(node, gpus=make_gpus(node, 4, name=gpu))
        profiles.import_table(tables.splitwise(gpu=name), actor=Actor.system("test"), gpus={name: gpu})
    asked(now, rate=0.5)
    found = floor(row, now)
    assert found.counts == {Role.AGGREGATED: 1}
    assert f"1 x TP4 aggregated on {chosen}" in found.why


def test_the_other_kind_of_engines_is_compared_by_the_same_replay_with_the_number(
    chat: Deployment, now: datetime
) -> None:
    asked(now, rate=2.0)
    found = floor(chat, now).other
    assert found is not None and found.ratio is not None
    trace = sizes.recorded(chat, 24.0).at_rate(2.0)
    engines = [one.offer for one in offers(chat, {})[0]]
    transfer = sizes.transfer_ms_per_token(chat)
    both = size_search.find(trace, engines, Slo(2000.0, 60.0, 0.95), transfer_ms_per_token=transfer)
    assert both.aggregated is not None and both.disaggregated is not None
    assert found.ratio == both.aggregated.size.gpus / both.disaggregated.size.gpus
    start = f"Aggregated engines would do with {found.ratio:.2f} times the GPUs: {both.aggregated.size.told}"
    assert found.text.startswith(start) and "for 2 requests a second" in found.text


def test_what_was_compared_holds_for_an_hour_and_no_longer_or_for_another_kind(chat: Deployment, now: datetime) -> None:
    asked(now, rate=2.0)
    look = LaneLook(
        deployment=chat, role="decode", at=now, count=1, ready=1, wanted=1, kind="keep", why="",
        other="Aggregated engines, found before", other_ratio=0.5, other_at=now - timedelta(minutes=59), other_rate=2.0,
        other_basis=BASIS,
    )  # fmt: skip
    assert floor(chat, now, {"decode": look}).other == Other(look.other, 0.5, look.other_at, 2.0, None, BASIS)
    look.other_rate = 1.0
    anew = floor(chat, now, {"decode": look}).other
    assert anew is not None and (anew.at, anew.rate) == (now, 2.0), "it was found for half the rate"
    look.other_rate, look.other_at = 2.0, now - timedelta(minutes=61)
    assert floor(chat, now, {"decode": look}).other != Other(look.other, 0.5, look.other_at, 2.0, None, BASIS)
    look.other_basis, look.other_at = basis(2000, 60, 0.95, apart=False), now
    assert str(floor(chat, now, {"decode": look}).other.text).startswith("Aggregated engines would do with")


@pytest.mark.parametrize(
    "column",
    [
        {"other_at": timedelta(minutes=61)},
        {"other_rate": 1.0},
        {"other_basis": basis(2000, 50, 0.95, apart=True)},
        {"other_basis": basis(2000, 60, 0.99, apart=True)},
        {
            "other_ratio": None,
            "other_missed": True,
            "other_counts": {"aggregated": 1},
            "other_at": timedelta(minutes=11),
        },
    ],
)
def test_a_comparison_that_ended_is_made_anew_at_once_while_the_size_would_hold(
    chat: Deployment, now: datetime, column: dict[str, object]
) -> None:
    asked(now, rate=2.0)
    look = LaneLook(
        deployment=chat, role="decode", at=now, count=1, ready=1, wanted=1, kind="keep", why="", floor=7,
        floor_why="found before", floor_at=now - timedelta(minutes=9), rate_coming=2.0,
        other="Aggregated engines, found before", other_ratio=0.5, other_at=now - timedelta(minutes=59), other_rate=2.0,
        other_basis=BASIS,
    )  # fmt: skip
    assert floor(chat, now, {"decode": look}).counts == {Role.DECODE: 7}
    for name, value in column.items():
        setattr(look, name, now - value if isinstance(value, timedelta) else value)
    found = floor(chat, now, {"decode": look})
    assert found.counts == {Role.PREFILL: 1, Role.DECODE: 1}
    assert found.other is not None and (found.other.at, found.other.rate) == (now, 2.0)


def test_the_size_of_the_other_kind_of_engines_does_not_hold(chat: Deployment, now: datetime) -> None:
    asked(now, rate=2.0)
    look = LaneLook(
        deployment=chat, role="aggregated", at=now, count=1, ready=1, wanted=1, kind="keep", why="", floor=7,
        floor_why="found before", floor_at=now, rate_coming=2.0,
    )  # fmt: skip
    assert floor(chat, now, {"aggregated": look}).counts == {Role.PREFILL: 1, Role.DECODE: 1}


def test_where_neither_kind_keeps_the_objectives_that_is_told(chat: Deployment, now: datetime) -> None:
    asked(now, rate=2.0)
    chat.slo_ttft_ms = 1
    found = floor(chat, now)
    assert found.counts is None and found.other is not None and found.other.ratio is None
    assert found.other.text == "Aggregated engines on these GPUs would not keep the objectives, however many"
