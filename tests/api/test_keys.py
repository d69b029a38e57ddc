"""Keys of the gateway and join tokens over REST: each shown once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import JoinToken
from controlplane.gateway.models import ApiKey
from controlplane.gateway.services import hash_of
from tests.api.conftest import World, problem_of


def test_a_key_is_shown_once(admin: APIClient, world: World) -> None:
    body = {"name": "search", "deployments": ["chat"], "requests_per_minute": 60}
    response = admin.post("/api/v1/keys", body, format="json")
    assert response.status_code == 201, response.content
    made = response.json()
    plain = made.pop("key")
    assert ApiKey.objects.get(pk=made["id"]).key_hash == hash_of(plain)
    assert plain.startswith(made["prefix"])
    assert (made["deployments"], made["requests_per_minute"], made["revoked_at"]) == (["chat"], 60, None)
    shown = admin.get(f"/api/v1/keys/{made['id']}")
    assert shown.json() == made
    assert plain not in shown.content.decode()
    assert AuditEvent.objects.latest("id").source == "rest"


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": None},
        {"deployments": ["nothing of this name"]},
        {"deployments": "chat"},
        {"requests_per_minute": 0},
        {"requests_per_minute": "many"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"key": "fb-mine"},
        {"key_hash": "0" * 64},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(change: dict, admin: APIClient, world: World) -> None:
    problem_of(admin.post("/api/v1/keys", {"name": "search", **change}, format="json"), 400)
    assert ApiKey.objects.count() == 1


def test_a_revoked_key_stays_listed_as_such(admin: APIClient, world: World) -> None:
    response = admin.post(f"/api/v1/keys/{world.key.pk}/revoke", {}, format="json")
    revoked_at = response.json()["revoked_at"]
    assert revoked_at
    assert admin.post(f"/api/v1/keys/{world.key.pk}/revoke").json()["revoked_at"] == revoked_at
    [row] = admin.get("/api/v1/keys?revoked=true").json()["results"]
    assert row["id"] == world.key.pk
    assert admin.get("/api/v1/keys?revoked=false").json()["count"] == 0
    problem_of(admin.post("/api/v1/keys/4711/revoke", {}, format="json"), 404)


def test_a_join_token_comes_once_with_the_exact_command(admin: APIClient, settings: object) -> None:
    settings.PUBLIC_URL = "https://forebay.example"
    made = admin.post("/api/v1/join-tokens", {"node_name": "gpu-07", "ttl_s": 900}, format="json").json()
    plain = made["token"]
    assert made["command"] == f"python -m workers join https://forebay.example --token {plain} --name gpu-07"
    assert made["state"] == "open"
    shown = admin.get(f"/api/v1/join-tokens/{made['id']}")
    assert plain not in shown.content.decode()
    token = JoinToken.objects.get(pk=made["id"])
    assert timedelta(seconds=800) < token.expires_at - timezone.now() <= timedelta(seconds=900)


@pytest.mark.parametrize(
    "body", [{"node_name": "Not A Name"}, {"ttl_s": 0}, {"ttl_s": 10**9}, {"ttl_s": "x"}, {"token": "mine"}, {"ttl": 9}]
)
def test_a_join_token_that_makes_no_sense_is_refused(body: dict, admin: APIClient) -> None:
    problem_of(admin.post("/api/v1/join-tokens", body, format="json"), 400)
    assert not JoinToken.objects.exists()


def test_a_cancelled_join_token_is_expired(admin: APIClient, world: World) -> None:
    assert admin.get("/api/v1/join-tokens?open=true").json()["count"] == 1
    assert admin.delete(f"/api/v1/join-tokens/{world.join_token.pk}").status_code == 204
    assert admin.get("/api/v1/join-tokens?open=true").json()["count"] == 0
    [row] = admin.get("/api/v1/join-tokens?open=false").json()["results"]
    assert row["state"] == "expired"
    problem_of(admin.delete("/api/v1/join-tokens/4711"), 404)


def test_a_used_join_token_says_by_whom(admin: APIClient, world: World) -> None:
    JoinToken.objects.update(used_at=timezone.now(), used_by=world.node, used_from="10.0.0.7")
    [row] = admin.get("/api/v1/join-tokens").json()["results"]
    assert (row["state"], row["used_by"]["name"], row["used_from"]) == ("used", "alpha", "10.0.0.7")
