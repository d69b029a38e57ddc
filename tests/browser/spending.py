"""A few days of usage for the cost pages: samples, requests, prices and budgets, counted by the real counting."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.costs import counting, services
from controlplane.costs.models import Counted, UsageHour
from controlplane.fleet.models import Deployment, Gpu, Node, Partition
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey, RequestRecord
from controlplane.teams import services as teams
from controlplane.telemetry.models import EngineMinute, GpuMinute, Rollup

ACTOR = Actor.system("shots")
DAYS = 5


def spend(seed: int = 3) -> None:
    """Two teams, three keys, a node without a price; more by day than by night."""
    chance, now = random.Random(seed), timezone.now().replace(second=0, microsecond=0)
    begin = (now - timedelta(days=DAYS)).replace(minute=0)
    Node.objects.update(created_at=begin)
    keys = _teams()
    parts = list(Partition.objects.exclude(deployment=None).select_related("node", "deployment"))
    GpuMinute.objects.bulk_create(
        GpuMinute(gpu_id=gpu, at=at, reports=60)
        for gpu in Gpu.objects.values_list("pk", flat=True)
        for at in _minutes(begin, now)
    )
    for part in parts:
        EngineMinute.objects.bulk_create(
            EngineMinute(partition_id=part.pk, deployment_id=part.deployment_id, at=at, reports=60, covered_s=60.0)
            for at in _minutes(begin, now)
        )
        RequestRecord.objects.bulk_create(_requests(part, keys, begin, now, chance), batch_size=500)
    Rollup.objects.update_or_create(width_s=60, defaults={"upto": now})
    UsageHour.objects.all().delete()
    Counted.objects.all().delete()
    counting.count(timezone.now(), work_s=120.0)


def _teams() -> list[ApiKey | None]:
    names = list(Deployment.objects.order_by("pk").values_list("name", flat=True))
    search = teams.create_team(
        name="search", budget_soft=Decimal(900), budget_hard=Decimal(2500), deployments=names[:1], actor=ACTOR
    )
    teams.create_team(name="assistants", budget_hard=Decimal(150), deployments=names[1:2], actor=ACTOR)
    teams.create_team(name="research", actor=ACTOR)
    made = [
        gateway.create_key(name=name, team=team, actor=ACTOR)[0]
        for name, team in (("ranker", search.name), ("crawler", search.name), ("chat-web", "assistants"))
    ]
    priced = [node.name for node in Node.objects.order_by("name")]
    hour = timezone.now() - timedelta(days=DAYS)
    services.set_price(nodes=priced[:-1], per_gpu_hour=Decimal("2.49"), since=hour, reason="contract", actor=ACTOR)
    return [*made, None]


def _minutes(begin: datetime, now: datetime) -> list[datetime]:
    return [begin + timedelta(minutes=n) for n in range(int((now - begin).total_seconds() // 60))]


def _requests(
    part: Partition, keys: list[Any], begin: datetime, now: datetime, chance: random.Random
) -> list[RequestRecord]:
    found, at = [], begin
    while at < now:
        busy = 12.0 if 7 <= at.hour < 20 else 2.0
        at += timedelta(seconds=chance.expovariate(busy / 600.0))
        total = chance.uniform(5.0, 90.0)
        found.append(
            RequestRecord(
                at=at, request_id=f"req-{part.pk}-{len(found)}", api_key=chance.choices(keys, (5, 2, 4, 1))[0],
                deployment=part.deployment.name, kind="chat", streamed=True, outcome="ok", status=200, path="direct",
                decode=f"{part.node.name}/{part.name}", prompt_tokens=chance.randint(200, 6000),
                completion_tokens=chance.randint(50, 900), ttft_ms=200.0 + total * 30.0, total_ms=total * 1e3,
            )
        )  # fmt: skip
    return found


def cost_scenes() -> list[tuple[str, str, Any]]:
    def twin(page: Any) -> None:
        page.click(".twin summary")
        page.wait_for_timeout(300)

    team = teams.Team.objects.get(name="search").pk
    return [
        ("cost", "/cost/", None),
        ("cost-model", "/cost/?by=model&range=1", twin),
        ("cost-share", "/cost/?by=share&measure=time", None),
        ("cost-teams", "/cost/teams/", None),
        ("cost-team", f"/cost/teams/{team}/", None),
        ("cost-prices", "/cost/prices/", None),
    ]
