"""What was seen of an engine in service corrects what was measured of it before."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.refining import FEWEST
from controlplane.fleet.models import Deployment, Partition
from controlplane.gateway.models import RequestRecord
from controlplane.planning import profiles
from controlplane.planning.live_speed import live
from controlplane.planning.offers import offers
from controlplane.telemetry.models import EngineMinute
from tests.factories import make_deployment, make_gpus, make_model, make_node, make_partition
from tests.planning import profile_tables as tables

pytestmark = pytest.mark.django_db
GPU = "Simulated H100 80GB"


@pytest.fixture
def chat() -> Deployment:
    row = make_deployment("chat", model=make_model("llama"))
    node = make_node("alpha")
    for role in ("prefill", "decode"):
        make_partition(node, gpus=make_gpus(node, 4), deployment=row, role=role)
    profiles.import_table(tables.splitwise(gpu="h100"), actor=Actor.system("test"), gpus={"h100": GPU})
    return row


def engine(role: str) -> Partition:
    return Partition.objects.get(role=role)


def served(*, prefill_ms: float, number: int = FEWEST, **columns: object) -> None:
    RequestRecord.objects.bulk_create(
        RequestRecord(**{
            "at": timezone.now() - timedelta(minutes=5), "request_id": "r", "deployment": "chat", "kind": "chat",
            "outcome": "ok", "status": 200, "path": "two_step", "prefill": str(engine("prefill")),
            "decode": str(engine("decode")), "prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 0,
            "prefill_ms": prefill_ms, "total_ms": 900.0,
        } | columns)
        for _ in range(number)
    )  # fmt: skip


def minutes(*, itl_ms: float, role: str = "decode", running: float = 4.0, computed: float = 0.0) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    partition = engine(role)
    EngineMinute.objects.bulk_create(
        EngineMinute(
            partition=partition, at=now - timedelta(minutes=ago), deployment_id=partition.deployment_id,
            running=running, itl_ms=itl_ms, generation_tps=100.0, computed_tps=computed,
        )
        for ago in range(1, FEWEST + 1)
    )  # fmt: skip


def offered(chat: Deployment) -> tuple[float, float, tuple[str, ...]]:
    """ms of a prompt of 1,000 tokens, of a token beside three others; and what is told."""
    [[one], _] = offers(chat, {})
    speed = one.offer.speed
    prompt = speed.prefill.law.prompt_ms(1000, speed.knee.tokens)
    return prompt, speed.decode.law.itl_ms(4, 1050), one.notes


def test_requests_and_minutes_of_its_own_engines_count(chat: Deployment) -> None:
    prompt, token, _ = offered(chat)
    served(prefill_ms=prompt * 1.5)
    minutes(itl_ms=token * 1.2)
    after = offered(chat)
    assert after[0] == pytest.approx(prompt * 1.5)
    assert after[1] == pytest.approx(token * 1.2, rel=0.01)
    assert sum("which is counted" in note for note in after[2]) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"prefill": "elsewhere/p0"},
        {"cached_tokens": 1000},
        {"outcome": "error"},
        {"wake_ms": 3000.0},
        {"at": timezone.now() - timedelta(hours=25)},
    ],
)
def test_requests_that_tell_nothing_of_it_do_not(chat: Deployment, other: dict[str, object]) -> None:
    served(prefill_ms=500.0, **other)
    assert not live(chat, GPU, 4, timezone.now()).prompts


@pytest.mark.parametrize("other", [{"role": "prefill"}, {"running": 1.0}, {"computed": 50.0}])
def test_minutes_that_tell_of_something_else_do_not(chat: Deployment, other: dict[str, object]) -> None:
    served(prefill_ms=500.0)
    minutes(itl_ms=30.0, **other)  # type: ignore[arg-type]
    assert not live(chat, GPU, 4, timezone.now()).decode


def test_another_kind_of_engine_learns_nothing_from_these(chat: Deployment) -> None:
    served(prefill_ms=500.0)
    assert not live(chat, "Other GPU", 4, timezone.now()).prompts
    assert not live(chat, GPU, 8, timezone.now()).prompts
