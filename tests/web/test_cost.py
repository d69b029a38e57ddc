"""Cost pages: usage, teams with their budgets, prices of nodes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.costs import counting
from controlplane.costs.models import NodePrice
from controlplane.teams import services
from controlplane.teams.models import Team, TeamSpend
from controlplane.web.templatetags import money, present
from tests.costs.conftest import LATER, Past, past  # noqa: F401
from tests.web.conftest import Clients


def test_the_page_says_what_is_missing_and_how_to_mend_it(past: Past, as_role: Clients) -> None:  # noqa: F811
    viewer, address = as_role("viewer"), reverse("web:cost")
    page = viewer.get(address).content.decode()
    assert "Nothing is counted yet" in page and "js/cost.js" not in page
    past.up(past.decode)
    counting.count(LATER)
    page = viewer.get(address).content.decode()
    assert "No node has a price yet" in page and "js/cost.js" in page
    NodePrice.objects.create(node=past.node, since=LATER, per_gpu_hour=1)
    assert "No node has a price yet" not in viewer.get(address).content.decode()


@pytest.mark.parametrize(
    ("spent", "said", "percent"), [("79.99", "", 79), ("80", "past soft limit", 80), ("120", "refused", 120)]
)
def test_a_teams_budget_tells_how_much_is_used(
    spent: str, said: str, percent: int, as_role: Clients, actor: Actor
) -> None:
    team = services.create_team(name="search", budget_soft=Decimal(80), budget_hard=Decimal(100), actor=actor)
    viewer = as_role("viewer")
    assert "not counted yet" in viewer.get(reverse("web:teams")).content.decode()
    month = timezone.now().date().replace(day=1)
    TeamSpend.objects.create(team=team, month=month, spent=Decimal(spent), unpriced_gpu_s=7200)
    page = viewer.get(reverse("web:teams")).content.decode()
    assert (said in page) and ("chip" in page) is bool(said)
    assert f"{percent}%" in page and "2 GPU-hours unpriced" in page
    assert "Remove" not in page, "a viewer changes nothing"
    TeamSpend.objects.update(month=datetime(2020, 1, 1, tzinfo=UTC).date())
    assert "0.00" in viewer.get(reverse("web:teams")).content.decode(), "another month's is not this one's"


def test_a_team_is_made_changed_and_removed_on_pages(as_role: Clients, fleet: SimpleNamespace) -> None:
    admin = as_role("admin")
    form = {"name": "billing", "budget_soft": "80", "budget_hard": "100", "deployments": ["chat"]}
    assert admin.post(reverse("web:team-new"), {**form, "budget_soft": "800"}).status_code == 400
    assert admin.post(reverse("web:team-new"), {**form, "budget_hard": "much"}).status_code == 422
    assert admin.post(reverse("web:team-new"), form).status_code == 302
    team = Team.objects.get(name="billing")
    assert team.deployments.get().deployment == fleet.deployment
    address = reverse("web:team", args=[team.pk])
    page = admin.get(address).content.decode()
    assert 'value="100.00"' in page and "checked" in page
    other = admin.get(reverse("web:team", args=[fleet.team.pk])).content.decode()
    assert 'value="chat"' not in other, "another team's deployment is not offered"
    changed = {"name": "billing", "budget_soft": "", "budget_hard": "90", "pool_floor": "3", "reason": "agreed"}
    assert admin.post(address, changed).status_code == 302
    team.refresh_from_db()
    assert (team.budget_soft, team.budget_hard, team.pool_floor, team.deployments.count()) == (None, 90, 3, 0)
    assert AuditEvent.objects.latest("id").reason == "agreed"
    admin.post(reverse("web:team-remove", args=[team.pk]))
    assert not Team.objects.filter(name="billing").exists()


def test_prices_are_set_for_chosen_nodes_or_for_all(as_role: Clients, fleet: SimpleNamespace) -> None:
    admin, address = as_role("admin"), reverse("web:price-set")
    nothing = admin.post(address, {"per_gpu_hour": "2"})
    assert nothing.status_code == 400 and "No node is named" in nothing.content.decode()
    assert admin.post(address, {"nodes": ["beta"], "per_gpu_hour": "2"}).status_code == 422
    assert admin.post(address, {"nodes": ["gpu-1"], "per_gpu_hour": "2.49", "reason": "bill"}).status_code == 302
    page = admin.get(reverse("web:prices")).content.decode()
    assert ">2.49<" in page and ">19.92<" in page, "of each of its eight GPUs, and of all"
    admin.post(address, {"all_nodes": "on", "per_gpu_hour": "", "since": "2026-01-02T03:00"})
    first = NodePrice.objects.earliest("since")
    assert (first.since, first.per_gpu_hour) == (datetime(2026, 1, 2, 3, tzinfo=UTC), None)
    viewer = as_role("viewer").get(reverse("web:prices")).content.decode()
    assert "gpu-1" in viewer and "Set the price" not in viewer


def test_a_price_has_cents_and_what_is_beyond_them() -> None:
    told = {"2.0000": "2.00", "2.5": "2.50", "0.0375": "0.0375", "1234.5000": "1,234.50", "0": "0.00", "100": "100.00"}
    assert {text: money.price(Decimal(text)) for text in told} == told
    assert money.price(0.4) == "0.40" and money.price(None) == present.UNKNOWN
