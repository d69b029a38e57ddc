"""The brake over REST."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from tests.api.conftest import problem_of
from tests.factories import make_node

ADDRESS = "/api/v1/brake"


@pytest.fixture
def lost(db: None) -> None:
    make_node("here")
    for number in range(2):
        make_node(f"gone-{number}", last_seen=timezone.now() - timedelta(seconds=30))


def test_viewers_see_why_nothing_happens_by_itself(viewer: APIClient, lost: None) -> None:
    found = viewer.get(ADDRESS).json()
    assert (found["on"], found["cause"], found["heard"], found["counted"]) == (True, "mass-loss", 1, 3)
    assert [node["name"] for node in found["silent"]] == ["gone-0", "gone-1"]
    assert viewer.get("/api/v1/live").json()["brake"]["text"] == found["text"]


def test_an_operator_releases_it_and_lets_it_hold_again(operator: APIClient, lost: None) -> None:
    body = {"for_s": 600, "reason": "rack b12 lost power"}
    found = operator.post(f"{ADDRESS}/release", body, format="json")
    assert (found.status_code, found.json()["on"], found.json()["tripped"]) == (200, False, True)
    event = AuditEvent.objects.get(verb="release-brake")
    assert (event.reason, event.source) == ("rack b12 lost power", "rest")
    assert operator.post(f"{ADDRESS}/restore", {}, format="json").json()["on"]


@pytest.mark.parametrize(
    "body", [{}, {"for_s": 600}, {"reason": "x"}, {"for_s": 600, "reason": " "}, {"for_s": 1e9, "reason": "x"},
             {"for_s": 60, "reason": "x", "force": True}],
)  # fmt: skip
def test_a_release_needs_a_reason_and_an_end(body: dict, operator: APIClient, lost: None) -> None:
    problem_of(operator.post(f"{ADDRESS}/release", body, format="json"), 400)
    assert operator.get(ADDRESS).json()["on"]


def test_what_is_not_on_is_not_released(operator: APIClient) -> None:
    make_node()
    answer = operator.post(f"{ADDRESS}/release", {"for_s": 60, "reason": "x"}, format="json")
    assert problem_of(answer, 409)["problems"][0]["code"] == "brake-off"
