"""Draining a node from its page: the plan first, then progress, then calling it off."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.urls import reverse

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services, versions
from controlplane.fleet.models import Change, Node, Partition
from tests import factories
from tests.web.conftest import Clients

PETE = Actor(name="pete", source="rest")


def url(name: str, *args: object) -> str:
    return reverse(f"web:{name}", args=args)


@pytest.fixture
def room(fleet: SimpleNamespace) -> list[Partition]:
    node = factories.make_node("gpu-2")
    return [factories.make_partition(node) for _ in range(2)]


def test_the_plan_says_where_each_engine_goes(as_role: Clients, fleet: SimpleNamespace, room: list[Partition]) -> None:
    page = as_role("operator").get(url("node-drain", fleet.node.pk)).content.decode()
    assert "gpu-1/p0" in page
    assert "gpu-2/p0" in page
    assert "First 2 engines start elsewhere" in page
    assert "Type gpu-1 to confirm" not in page
    assert not Node.objects.filter(draining=True).exists()


def test_what_finds_no_room_is_told_and_the_last_of_a_role_has_to_be_typed(
    as_role: Clients, fleet: SimpleNamespace
) -> None:
    client, address = as_role("operator"), url("node-drain", fleet.node.pk)
    page = client.get(address).content.decode()
    assert "no other node has a free partition" in page
    assert "Type gpu-1 to confirm" in page

    form = {"reason": "new fan", "deadline_s": "60"}
    refused = client.post(address, form)
    assert refused.status_code == 422
    assert "Type gpu-1 to go on all the same." in refused.content.decode()
    assert not Node.objects.get(pk=fleet.node.pk).draining

    assert client.post(address, {**form, "confirm": "gpu-1"}).status_code == 302
    assert Node.objects.get(pk=fleet.node.pk).spec["drain_s"] == 60
    assert AuditEvent.objects.get(verb="drain").reason == "new fan"


def test_without_room_moving_is_refused_until_it_is_forced(as_role: Clients, fleet: SimpleNamespace) -> None:
    client, address = as_role("operator"), url("node-drain", fleet.node.pk)
    form = {"move": "on", "confirm": "gpu-1", "version": versions.current()}
    assert client.post(address, form).status_code == 409
    assert not Node.objects.get(pk=fleet.node.pk).draining
    assert client.post(address, {**form, "force": "on"}).status_code == 302
    assert Node.objects.get(pk=fleet.node.pk).draining


def test_moving_first_is_a_change_whose_progress_shows_and_cancel_takes_it_back(
    as_role: Clients, fleet: SimpleNamespace, room: list[Partition]
) -> None:
    client = as_role("operator")
    form = {"move": "on", "version": versions.current(), "reason": "new fan"}
    answer = client.post(url("node-drain", fleet.node.pk), form)
    change = Change.objects.get()
    assert answer["Location"] == url("change", change.pk)
    page = client.get(url("node", fleet.node.pk)).content.decode()
    assert f'href="{url("change", change.pk)}"' in page
    assert "Its engines are moved first." in page
    assert "0 of 2 steps done" in client.get(url("node-drain-progress", fleet.node.pk)).content.decode()

    answer = client.post(url("node-cancel-drain", fleet.node.pk), {"reason": "no"}, follow=True)
    assert "is taken back" in answer.content.decode()
    change.refresh_from_db()
    assert change.backwards


def test_somebody_who_was_faster_is_told_of(as_role: Clients, fleet: SimpleNamespace, room: list[Partition]) -> None:
    version = versions.current()
    services.cordon(fleet.node.pk, actor=PETE)
    answer = as_role("operator").post(url("node-drain", fleet.node.pk), {"move": "on", "version": version})
    assert answer.status_code == 409
    assert "pete was faster" in answer.content.decode()


def test_progress_says_what_is_left_and_until_when(as_role: Clients, fleet: SimpleNamespace) -> None:
    services.drain(fleet.node.pk, actor=PETE, deadline_s=600)
    viewer = as_role("viewer")
    page = viewer.get(url("node-drain-progress", fleet.node.pk)).content.decode()
    assert "<b>2 partitions</b> still have an engine" in page
    assert "UTC" in page
    Partition.objects.update(phase="")
    assert "nothing runs here any more" in viewer.get(url("node-drain-progress", fleet.node.pk)).content.decode()


def test_a_cancelled_drain_serves_again_and_can_be_taken_up_again(as_role: Clients, fleet: SimpleNamespace) -> None:
    services.drain(fleet.node.pk, actor=PETE)
    client = as_role("operator")
    answer = client.post(url("node-cancel-drain", fleet.node.pk), {"reason": "not today"}, follow=True)
    page = answer.content.decode()
    assert "Cancelled the drain of gpu-1" in page
    assert f'action="{url("node-drain", fleet.node.pk)}"' in page, "its undo"
    assert AuditEvent.objects.get(verb="cancel-drain").reason == "not today"
    client.post(url("node-drain", fleet.node.pk), {"reason": "undo: cancel the drain", "confirm": "gpu-1"})
    assert Node.objects.get(pk=fleet.node.pk).draining


def test_a_new_deadline_needs_no_typing(as_role: Clients, fleet: SimpleNamespace) -> None:
    services.drain(fleet.node.pk, actor=PETE)
    client, address = as_role("operator"), url("node-drain", fleet.node.pk)
    assert "It drains already." in client.get(address).content.decode()
    assert client.post(address, {"deadline_s": "30"}).status_code == 302
    assert Node.objects.get(pk=fleet.node.pk).spec["drain_s"] == pytest.approx(30, abs=2)


@pytest.mark.parametrize("deadline", ["-1", "soon", "99999999", "nan"])
def test_a_deadline_that_makes_no_sense_is_marked(deadline: str, as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("operator")
    answer = client.post(url("node-drain", fleet.node.pk), {"deadline_s": deadline, "confirm": "gpu-1"})
    assert answer.status_code == 422
    assert client.get(url("node-drain-plan", fleet.node.pk), {"deadline_s": deadline}).status_code == 200
    assert not Node.objects.get(pk=fleet.node.pk).draining
