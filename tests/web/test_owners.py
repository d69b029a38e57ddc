"""Giving owners in the browser, and what others then see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.urls import reverse

from controlplane.audit.models import AuditEvent
from tests import factories
from tests.web.conftest import Clients, text


@pytest.fixture
def kept(fleet: SimpleNamespace) -> SimpleNamespace:
    fleet.node.restricted = True
    fleet.node.save()
    fleet.node.owners.add(factories.make_user("operator", username="ana"))
    return fleet


@pytest.mark.parametrize("noun", ["node", "deployment"])
def test_an_admin_gives_owners_and_takes_them_away(noun: str, as_role: Clients, fleet: SimpleNamespace) -> None:
    factories.make_user("operator", username="ana"), factories.make_user("viewer", username="vic")
    row, admin = getattr(fleet, noun), as_role("admin")
    address = reverse(f"web:{noun}-owners", args=[row.pk])
    page = text(admin.get(address))
    assert "ana" in page
    assert "vic" not in page, "a viewer could change nothing"
    answer = admin.post(address, {"restricted": "1", "owners": ["ana"], "reason": "prod"}, follow=True)
    assert "may now be changed by ana, admins" in text(answer)
    row.refresh_from_db()
    assert (row.restricted, [user.username for user in row.owners.all()]) == (True, ["ana"])
    assert AuditEvent.objects.first().verb == "set-owners"
    answer = admin.post(address, {"restricted": "", "owners": ["ana"]}, follow=True)
    assert "may now be changed by every operator" in text(answer)
    row.refresh_from_db()
    assert not row.restricted


def test_who_may_change_it_is_on_its_page_and_only_admins_may_change_that(
    as_role: Clients, kept: SimpleNamespace
) -> None:
    address = reverse("web:node", args=[kept.node.pk])
    for role, link in (("viewer", False), ("operator", False), ("admin", True)):
        page = as_role(role).get(address)
        assert "Changed by ana, admins" in text(page)
        assert (reverse("web:node-owners", args=[kept.node.pk]) in page.content.decode()) is link


def test_an_operator_who_is_no_owner_is_told_so_by_the_preview_and_by_the_change(
    as_role: Clients, kept: SimpleNamespace
) -> None:
    operator, address = as_role("operator"), reverse("web:assign", args=[kept.prefill.pk])
    assert "Only ana and admins may change node gpu-1" in text(operator.get(f"{address}?role=decode"))
    body = {"deployment": kept.deployment.pk, "role": "decode", "reason": "x", "force": "on"}
    answer = operator.post(address, body)
    assert answer.status_code == 403
    assert "Only ana and admins may change node gpu-1" in text(answer)
    kept.prefill.refresh_from_db()
    assert kept.prefill.role == "prefill"


@pytest.mark.parametrize("name", ["node-cordon", "node-uncordon", "node-cancel-drain", "node-label", "split"])
def test_its_buttons_refuse_as_well(name: str, as_role: Clients, kept: SimpleNamespace) -> None:
    body = {"labels": "rack=a", "preset": "8x1"}
    answer = as_role("operator").post(reverse(f"web:{name}", args=[kept.node.pk]), body, follow=True)
    assert "Only ana and admins may change node gpu-1" in text(answer)
    kept.node.refresh_from_db()
    assert (kept.node.schedulable, kept.node.labels) == (True, {})
