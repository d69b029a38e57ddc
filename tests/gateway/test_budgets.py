"""From requests on record and a price to a refusal at the gateway, by the roads of a running system."""

from __future__ import annotations

from decimal import Decimal

import httpx
import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.costs import counting
from controlplane.costs import services as costs
from controlplane.gateway import services, table
from controlplane.gateway.table import Key
from controlplane.teams import services as teams
from tests.costs.conftest import make_past
from tests.gateway.conftest import MakeSite, Site


@pytest.fixture
def counted(db: None, actor: Actor) -> tuple[str, str, dict[str, Key]]:
    """A key of a team that is past its budget, one of a team that is not, and the keys as a gateway reads them."""
    now = timezone.now()
    past = make_past(actor, now.replace(minute=0, second=0, microsecond=0))
    _, spent = services.create_key(name="spent", team="users", actor=actor)
    _, other = services.create_key(name="other", team="owners", actor=actor)
    past.up(past.decode)
    past.asked(0, 40)  # a minute of GPU time: 0.06
    costs.set_price(nodes=["alpha"], per_gpu_hour=Decimal("3.60"), since=past.hour, actor=actor)
    teams.change_team(past.user.pk, budget_hard=Decimal("0.05"), actor=actor)
    teams.change_team(past.owner.pk, budget_hard=Decimal("7.15"), actor=actor)  # 7.14 of it are used
    counting.count(now)
    return spent, other, table.read(now).keys


async def test_a_budget_that_is_used_up_closes_the_gateway_to_its_team_alone(
    counted: tuple[str, str, dict[str, Key]], make_site: MakeSite
) -> None:
    spent, other, keys = counted
    site = await make_site()
    site.table.keys.update(keys)
    assert (await asked_by(site, other)).status_code == 200
    refusal = await asked_by(site, spent)
    assert refusal.status_code == 429
    error = refusal.json()["error"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert "The team users has used 0.06 of its budget of 0.05 USD this month." in error["message"]
    assert 0 < int(refusal.headers["retry-after"]) <= 31 * 86_400


async def asked_by(site: Site, key: str) -> httpx.Response:
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 4}
    return await site.client.post("/v1/completions", json=body, headers={"Authorization": f"Bearer {key}"})
