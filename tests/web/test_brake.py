"""The banner on every page, and the page that releases the brake."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.fleet import brake
from controlplane.fleet.models import Node
from tests import factories
from tests.web.conftest import Clients

BANNER = "Nothing is rescheduled by itself."


@pytest.fixture
def lost(db: None) -> None:
    factories.make_node("here")
    for number in range(2):
        factories.make_node(f"gone-{number}", last_seen=timezone.now() - timedelta(seconds=30))


@pytest.mark.parametrize("name", ["fleet", "models", "nodes", "activity", "settings", "brake"])
def test_every_page_says_that_the_brake_is_on(name: str, as_role: Clients, lost: None) -> None:
    page = as_role("viewer").get(reverse(f"web:{name}")).content.decode()
    assert BANNER in page
    assert "2 of 3 nodes fell silent: gone-0, gone-1." in page


def test_no_page_does_while_it_is_off(as_role: Clients, db: None) -> None:
    factories.make_node()
    assert BANNER not in as_role("viewer").get(reverse("web:fleet")).content.decode()


def test_whoever_may_see_nothing_is_told_nothing(as_role: Clients, lost: None) -> None:
    assert "gone-0" not in as_role(None).get(reverse("account_login")).content.decode()
    assert "gone-0" not in as_role("").get(reverse("web:fleet")).content.decode()


def test_an_open_page_gets_the_banner_when_it_changes_and_nothing_else(as_role: Clients, lost: None) -> None:
    client, address = as_role("viewer"), reverse("web:brake-banner")
    first = client.get(address, {"key": ""})
    assert (first.status_code, BANNER in first.content.decode()) == (200, True)
    assert client.get(address, {"key": brake.state().key}).status_code == 204
    Node.objects.update(last_seen=timezone.now())
    gone = client.get(address, {"key": "mass-loss-1-2-3"})
    assert (gone.status_code, BANNER in gone.content.decode()) == (200, False)


def test_a_draft_says_that_its_steps_would_wait(as_role: Clients, lost: None) -> None:
    node, deployment = Node.objects.get(name="here"), factories.make_deployment("chat")
    idle = factories.make_partition(node, gpus=factories.make_gpus(node, 1))
    address = f"{reverse('web:board-preview')}?move={idle.pk}:{deployment.pk}:aggregated"
    assert "its steps wait until it is off" in as_role("operator").get(address).content.decode()
    Node.objects.update(last_seen=timezone.now())
    assert "its steps wait" not in as_role("operator").get(address).content.decode()


def test_it_is_released_with_a_reason_and_held_again(as_role: Clients, lost: None) -> None:
    client = as_role("operator")
    answer = client.post(reverse("web:brake-release"), {"minutes": 30, "reason": "rack is gone"}, follow=True)
    page = answer.content.decode()
    assert "The brake is released" in page
    assert BANNER not in page
    assert AuditEvent.objects.get(verb="release-brake").reason == "rack is gone"
    assert BANNER in client.post(reverse("web:brake-restore"), follow=True).content.decode()


def test_without_a_reason_it_holds(as_role: Clients, lost: None) -> None:
    answer = as_role("operator").post(reverse("web:brake-release"), {"minutes": 30, "reason": ""})
    assert answer.status_code == 422
    assert brake.state().on


def test_a_viewer_sees_the_page_without_the_form(as_role: Clients, lost: None) -> None:
    page = as_role("viewer").get(reverse("web:brake")).content.decode()
    assert "gone-1" in page
    assert "Release the brake" not in page
