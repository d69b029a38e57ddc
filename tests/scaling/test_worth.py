"""What a free partition would cost for the work: prices of nodes by measured speeds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.costs.models import NodePrice
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.planning import profiles
from controlplane.scaling import worth
from controlplane.scaling.models import LaneLook
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpus, make_model, make_node, make_partition, make_ready
from tests.planning import profile_tables as tables
from tests.scaling.test_floors import asked
from workers.contract import Role

pytestmark = pytest.mark.django_db
ANNA = Actor.system("anna")
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}  # that four GPUs can share
HOPPER, AMPERE = "Simulated H100 80GB", "Simulated A100 80GB"


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def slower(table: str, factor: float) -> str:
    head, *rows = table.strip().split("\n")
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[5], row[6] = str(factor * float(row[5])), str(factor * float(row[6]))
    return "\n".join([head, *(",".join(row) for row in cells)]) + "\n"


@pytest.fixture
def chat(figures: dict[int, EngineFigures], now: datetime) -> Deployment:
    """An engine on the hopper node, which has a free partition, as ampere has, half as fast. Requests press."""
    hopper, ampere = make_node("hopper"), make_node("ampere")
    row = make_deployment("chat", model=make_model("llama", config=HEADS), slo_ttft_ms=2000, slo_itl_ms=60)
    engine = make_ready(make_partition(hopper, gpus=make_gpus(hopper, 4), deployment=row, role="aggregated"))
    figures[engine.pk] = EngineFigures(running=9.0, waiting=0.0, kv_usage=1.0)
    make_partition(hopper, gpus=make_gpus(hopper, 4))
    make_partition(ampere, gpus=make_gpus(ampere, 4, name=AMPERE))
    profiles.import_table(tables.splitwise(gpu="h100"), actor=ANNA, gpus={"h100": HOPPER})
    profiles.import_table(slower(tables.splitwise(gpu="a100"), 2.0), actor=ANNA, gpus={"a100": AMPERE})
    asked(now, rate=0.5)
    return row


def priced(**prices: str) -> None:
    for name, price in prices.items():
        NodePrice.objects.create(
            node=Node.objects.get(name=name), since=timezone.now().replace(year=2020), per_gpu_hour=Decimal(price)
        )


@pytest.mark.parametrize(("ampere", "chosen"), [("1.5", "ampere"), ("2.5", "hopper"), ("9", "hopper")])
def test_half_the_speed_is_taken_for_less_than_half_the_price(
    chat: Deployment, now: datetime, ampere: str, chosen: str
) -> None:
    priced(hopper="4", ampere=ampere)
    plan = propose(now)

    assert plan is not None
    assert [move["name"].split("/")[0] for move in plan.moves] == [chosen]
    assert "for 1,000 requests at most load" in plan.moves[0]["why"]
    [lane] = LaneLook.objects.all()
    assert lane.other.startswith("Disaggregated engines") and lane.other_at == now
    assert lane.other_ratio is not None and lane.other_ratio > 1.0, "one engine does both here; apart it takes two"


def test_without_every_price_or_without_requests_nothing_is_known(chat: Deployment, now: datetime) -> None:
    rows = list(Partition.objects.filter(deployment=None).select_related("node").prefetch_related("gpus"))
    lanes = [(chat.pk, Role.AGGREGATED)]
    priced(hopper="4")
    assert worth.worths(chat, lanes, rows, now) == {}
    priced(ampere="1.5")
    known = worth.worths(chat, lanes, rows, now)
    assert sorted(one.what for one in known.values()) == [
        f"4 x {AMPERE} at 1.5 a GPU-hour",
        f"4 x {HOPPER} at 4 a GPU-hour",
    ]
    chat.slo_itl_ms = None
    assert worth.worths(chat, lanes, rows, now) == {}
