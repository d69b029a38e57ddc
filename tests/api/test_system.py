"""Health, versions and who I am."""

from __future__ import annotations

import pytest
from django.db import connection
from rest_framework.test import APIClient

from controlplane.audit import roles
from tests.conftest import Broker
from tests.factories import make_node


def test_health_needs_no_login_and_says_up(broker: Broker, db: None) -> None:
    response = APIClient().get("/api/v1/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["database"], body["broker"]) == ("up", "up", "up")
    assert broker.password not in response.content.decode()


def test_without_the_broker_it_is_degraded_but_200(db: None) -> None:
    response = APIClient().get("/api/v1/health")
    assert response.status_code == 200
    assert response.json()["status"] == "degraded"


def test_without_the_database_it_is_503(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def gone() -> None:
        raise OperationalError("no such host db.internal")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", gone)
        response = APIClient().get("/api/v1/health")
    assert response.status_code == 503
    assert response.json()["database"] == "down"
    assert "db.internal" not in response.content.decode()


def test_a_wrong_token_does_not_fail_a_probe(db: None) -> None:
    assert APIClient().get("/api/v1/health", HTTP_AUTHORIZATION="Token nonsense").status_code == 200


@pytest.mark.parametrize("role", ["nobody", "viewer", "operator", "admin"])
def test_me_lists_exactly_what_the_role_may_do(role: str, as_role) -> None:
    me = as_role(role).get("/api/v1/me").json()
    level = roles.ROLES.get(role, roles.Level.NONE)
    assert me["role"] == ("none" if role == "nobody" else role)
    assert set(me["actions"]) == {name for name, needed in roles.ACTIONS.items() if needed <= level}


def test_version_tells_what_runs_on_the_nodes_each_once(viewer: APIClient) -> None:
    make_node(agent_version="0.1.0")
    make_node(agent_version="0.1.0", engine_version="0.31.1")
    body = viewer.get("/api/v1/version").json()
    assert body["agents"] == ["0.1.0"]
    assert body["engines"] == ["0.31.1", "0.32.0"]
