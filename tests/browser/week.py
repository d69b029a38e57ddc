"""A week of a small fleet's requests, made from known habits, in the database of a running site, with the forecasts
that were made of it. For pictures and the test of the Capacity page; run in a process with the site's environment."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import django
import numpy as np
from django.utils import timezone

django.setup()

from controlplane.audit.services import Actor  # noqa: E402
from controlplane.domain.forecast.activity import Requests  # noqa: E402
from controlplane.domain.model_facts import from_config  # noqa: E402
from controlplane.fleet import brake  # noqa: E402
from controlplane.fleet.models import GatewayBeat  # noqa: E402
from controlplane.gateway.models import DemandMinute, RequestRecord  # noqa: E402
from controlplane.planning import comparing, keeping, policy, profiles, standing  # noqa: E402
from controlplane.planning.forecasting import PACES, Forecasting  # noqa: E402
from controlplane.planning.models import Forecast, RecordedSpan  # noqa: E402
from controlplane.planning.traces import write  # noqa: E402
from tests.domain.configs import LLAMA_70B  # noqa: E402
from tests.domain.forecast.worlds import fleet  # noqa: E402
from tests.factories import (  # noqa: E402
    make_deployment,
    make_gpus,
    make_model,
    make_node,
    make_partition,
    make_ready,
)
from tests.planning import profile_tables as tables  # noqa: E402

ACTOR = Actor.system("pictures")
DAYS = 7.0
LARGE_BYTES = 100_000_000_000  # two GPUs of 80 GiB hold it, one does not


def ending(requests: Requests, now: float) -> Requests:
    by = now - requests.at.max()
    return Requests(requests.models, requests.model, requests.at + by, requests.until + by, requests.number)


def trace(path: str, models: int) -> None:
    """A week, as a file to be imported."""
    write(of(models, time.time()), Path(path))


def forecast() -> None:
    """Of what is on record: as the control worker does each minute, with less of a replay."""
    paces = {horizon: replace(pace, replay_days=horizon == 600) for horizon, pace in PACES.items()}
    now = time.time()
    Forecasting(paces).tick(now)
    standing.refresh(now)


def begin() -> None:
    """Four minutes of record, with a gateway and the control worker at work: no forecast was due yet."""
    now = timezone.now()
    GatewayBeat.objects.create(name="pictures:8000", seen_at=now + timedelta(minutes=5))
    RecordedSpan.objects.create(start=now - timedelta(minutes=4), end=now, source="gateway")
    for name in ("chat", "code", "rank"):
        DemandMinute.objects.create(
            deployment=name, minute=now.replace(second=0, microsecond=0) - timedelta(minutes=2), arrivals=3
        )
    brake.look()


def forget() -> None:
    """What `begin` made."""
    for made in (GatewayBeat, RecordedSpan, DemandMinute):
        made.objects.all().delete()


def measured() -> int:
    """A deployment with engines, whose model was measured on such GPUs; its id."""
    node, heads = make_node("measured-1"), {"num_attention_heads": 8, "num_key_value_heads": 4}
    row = make_deployment("assistant", model=make_model("llama", config=heads), slo_ttft_ms=2000, slo_itl_ms=60)
    for role in ("prefill", "decode"):
        make_ready(make_partition(node, gpus=make_gpus(node, 4), deployment=row, role=role))
    profiles.import_table(tables.splitwise(gpu="h100"), actor=ACTOR, gpus={"h100": "Simulated H100 80GB"})
    return row.pk


def asked() -> None:
    """What was asked of it lately: requests of the last minutes, and three days of hours in which prompts grew."""
    now, dice = timezone.now(), np.random.default_rng(4)
    RequestRecord.objects.bulk_create(
        RequestRecord(
            at=now - timedelta(seconds=float(ago)), request_id="r", deployment="assistant", kind="chat", outcome="ok",
            status=200, path="two_step", prompt_tokens=int(dice.integers(200, 1800)),
            completion_tokens=int(dice.integers(20, 200)), total_ms=900.0,
        )
        for ago in np.sort(dice.random(300) * 150)
    )  # fmt: skip
    hour = now.replace(minute=0, second=0, microsecond=0)
    DemandMinute.objects.bulk_create(
        DemandMinute(
            deployment="assistant", minute=hour - timedelta(hours=ago), arrivals=60,
            prompt_tokens=60 * int(900 + 3 * (72 - ago) + dice.integers(0, 200)),
            completion_tokens=60 * int(dice.integers(90, 130)),
        )
        for ago in range(1, 73)
    )  # fmt: skip


def hour() -> None:
    """Too little of a record to say much."""
    now = time.time()
    found = ending(fleet(5, 0.03, wakes_a_day=200.0, busy_s=120.0), now)
    keeping.save_import(found, actor=ACTOR, now=now)
    Forecasting().tick(now)
    standing.refresh(now)


def pool() -> None:
    """Slots of one and of two GPUs, and some of the models: those called rank need two."""
    node = make_node("pool-1")
    for gpus in (1, 1, 1, 1, 2, 2):
        make_partition(node, gpus=gpus, pool=True)
    large = make_model("rank", facts=from_config(LLAMA_70B, LARGE_BYTES).to_dict())
    for place in range(3, 40, 4):
        make_deployment(f"rank-{place}", model=large, mode="pooled", engine_args=["--max-model-len", "4096"])
    for place in range(0, 20, 4):
        make_deployment(f"chat-{place}", mode="pooled")


def remember(models: int) -> None:
    Forecast.objects.all().delete()  # of the hour before
    now = time.time()
    keeping.save_import(of(models, now), actor=ACTOR, now=now)
    Forecasting().tick(now)
    policy.change(floors=["Mon-Fri 9:00-18:00 12"], time_zone="Europe/Berlin", actor=ACTOR)
    standing.refresh(now)


def compare() -> None:
    comparing.compare_if_due(time.time())


def of(models: int, now: float) -> Requests:
    found = ending(fleet(models, DAYS, seed=5, wakes_a_day=10.0, busy_s=600.0), now)
    named = tuple(f"{('chat', 'code', 'mini', 'rank')[place % 4]}-{place}" for place in range(len(found.models)))
    return Requests(named, found.model, found.at, found.until, found.number)
