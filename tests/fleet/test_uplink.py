"""The agents' uplink as an agent meets it: over HTTP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from controlplane.api import agent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Node
from tests.factories import make_deployment, make_node, make_partition, token_of
from tests.fleet.reporting import report_of, status_of
from workers.contract import NodeReport, ReportReply
from workers.joining import JoinReply

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_earlier_joins() -> None:
    agent._joins.clear()


def post(path: str, body: bytes | dict[str, Any], token: str = "", **extra: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client(enforce_csrf_checks=True).post(
        f"/agent/v1/{path}", data, content_type="application/json", headers=headers, **extra
    )


def send(node: Node, token: str | None = None, **fields: Any) -> Any:
    body = msgspec.json.encode(report_of(node, **fields))
    return post("report", body, token_of(node) if token is None else token)


def join_body(token: str, name: str = "host-1") -> dict[str, Any]:
    return {
        "token": token, "name": name, "address": "127.0.0.1", "instance": "i", "agent_version": "0.1.0", "at": 0.0
    }  # fmt: skip


def is_problem(response: Any, status: int, code: str) -> bool:
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["type"]) == (status, status, code)
    return bool(body["title"] and body["detail"])


def test_a_host_joins_and_reports_with_what_it_got(actor: Actor) -> None:
    _, plain = services.issue_join_token(actor=actor)

    joined = post("join", join_body(plain))
    reply = msgspec.json.decode(joined.content, type=JoinReply)
    report = NodeReport(node=reply.node, instance="i", seq=1, at=timezone.now().timestamp(), generation=0)
    answer = post("report", msgspec.json.encode(report), reply.node_token)

    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=ReportReply).spec.generation == 1


def test_a_report_is_answered_with_the_newer_spec(actor: Actor) -> None:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)

    reply = msgspec.json.decode(send(partition.node, generation=0).content, type=ReportReply)

    assert reply.spec.replicas[0].deployment == "chat"
    assert abs(reply.at - timezone.now().timestamp()) < 5


def test_a_report_fills_the_partition(actor: Actor) -> None:
    partition = make_partition(role="decode")

    send(partition.node, replicas=(status_of(partition, "ready"),))

    partition.refresh_from_db()
    assert partition.phase == "ready"


@pytest.mark.parametrize("token", ["", "fbn-guess"])
def test_without_a_known_token_nothing_is_told(token: str) -> None:
    assert is_problem(send(make_node(), token=token), 401, "unknown-token")


@pytest.fixture
def _removed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its token has been looked up, each node is removed, as by an admin in another process."""
    look_up = agent._node_of

    def look_up_and_remove(authorization: str) -> Node:
        node = look_up(authorization)
        Node.objects.all().delete()
        return node

    monkeypatch.setattr(agent, "_node_of", look_up_and_remove)


@pytest.mark.usefixtures("_removed_meanwhile")
def test_a_node_that_is_removed_while_it_reports_is_told_so() -> None:
    assert is_problem(send(make_node()), 401, "unknown-token")


def test_a_node_that_is_removed_before_its_spec_is_read_is_told_so(request: pytest.FixtureRequest) -> None:
    """It has no news, so that its row is not looked at before."""
    node = make_partition(role="decode").node
    for _ in range(2):
        assert send(node, generation=0).status_code == 200
    request.getfixturevalue("_removed_meanwhile")

    assert is_problem(send(node, generation=0), 401, "unknown-token")


def test_a_token_of_another_kind_of_authorization_is_none() -> None:
    node = make_node()
    body = msgspec.json.encode(report_of(node))

    response = Client().post(
        "/agent/v1/report", body, content_type="application/json", headers={"Authorization": f"Token {token_of(node)}"}
    )

    assert is_problem(response, 401, "unknown-token")


def test_after_a_rejoin_the_old_agent_is_unknown(actor: Actor) -> None:
    node = make_node("host-1")
    _, plain = services.issue_join_token(node_name="host-1", actor=actor)
    post("join", join_body(plain))

    assert is_problem(send(node), 401, "unknown-token")


def test_a_revoked_node_is_told_to_leave(actor: Actor) -> None:
    node = make_node()
    services.revoke_node(node.pk, actor=actor)

    assert is_problem(send(node), 410, "node-revoked")


def test_a_second_agent_is_told_so() -> None:
    node = make_node()
    send(node)

    assert is_problem(send(node, instance="another-home"), 409, "identity-conflict")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        ({"node": "1"}, "$.node"),
        ({"node": 1, "instance": "i", "seq": -1, "at": 0, "generation": 0}, "$.seq"),
        (
            {"node": 1, "instance": "i", "seq": 1, "at": 0, "generation": 0, "replicas": [{"partition": 1}]},
            "$.replicas",
        ),
        ({"node": 1, "instance": "i" * 300, "seq": 1, "at": 0, "generation": 0}, "$.instance"),
        ({"node": 1}, "instance"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_the_name_of_the_field(body: Any, named: str) -> None:
    node = make_node()

    response = post("report", body, token_of(node))

    assert is_problem(response, 400, "invalid-body")
    assert named in response.json()["detail"]


def test_a_report_of_another_node_is_refused() -> None:
    mine, theirs = make_node(), make_node()

    assert is_problem(send(theirs, token=token_of(mine)), 400, "bad-report")


def test_a_body_has_a_limit() -> None:
    node = make_node()

    assert is_problem(post("report", b" " * (agent.MAX_BODY + 1), token_of(node)), 413, "body-too-large")
    assert is_problem(post("join", b" " * (4 * agent.MAX_BODY)), 413, "body-too-large")


@pytest.mark.parametrize("path", ["join", "report"])
def test_only_post_is_understood(path: str) -> None:
    response = Client().get(f"/agent/v1/{path}")

    assert is_problem(response, 405, "method-not-allowed")
    assert response["Allow"] == "POST"


def test_a_refused_join_is_a_problem_document() -> None:
    assert is_problem(post("join", join_body("fbj-guess")), 401, "join-token-unknown")


def test_a_join_with_a_name_that_is_none_names_the_field() -> None:
    response = post("join", join_body("fbj-x", name="No Such Name"))

    assert is_problem(response, 400, "invalid-body")
    assert "$.name" in response.json()["detail"]


def test_join_tokens_cannot_be_tried_out() -> None:
    for _ in range(agent.JOINS_PER_MINUTE):
        post("join", join_body("fbj-guess"))

    refused = post("join", join_body("fbj-guess"))
    from_elsewhere = post("join", join_body("fbj-guess"), REMOTE_ADDR="10.0.0.9")

    assert is_problem(refused, 429, "too-many-joins")
    assert refused["Retry-After"] == "60"
    assert from_elsewhere.status_code == 401


def test_tries_that_are_a_minute_old_count_no_more() -> None:
    for second in range(agent.JOINS_PER_MINUTE):
        assert agent._may_try("10.0.0.1", float(second))

    assert not agent._may_try("10.0.0.1", 30.0)
    assert agent._may_try("10.0.0.1", 61.5)
    assert agent._may_try("10.0.0.2", 200.0)
    assert list(agent._joins) == ["10.0.0.2"]


def test_a_failed_database_is_an_answer_that_slows_agents_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("server closed the connection")

    node = make_node()
    monkeypatch.setattr(agent, "_node_of", fail)

    response = send(node)

    assert is_problem(response, 503, "database-unavailable")
    assert response["Retry-After"] == "5"


def test_a_fault_in_what_is_for_people_keeps_no_node_from_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(agent.telemetry, "take", fail)

    response = send(make_node())

    assert response.status_code == 200
    assert msgspec.json.decode(response.content, type=ReportReply).spec is not None


@pytest.mark.django_db(transaction=True)
def test_reports_run_on_threads_of_their_own_that_keep_their_connection(settings: Any) -> None:
    settings.UPLINK_THREADS = 1
    agent._threads.cache_clear()
    node, connections = make_node(), []
    try:
        for _ in range(3):
            assert send(node).status_code == 200
            connections.append(agent._threads().submit(lambda: id(connection.connection)).result())
    finally:
        agent._threads().submit(lambda: connection.close()).result()
        agent._threads().shutdown()
        agent._threads.cache_clear()
    assert len(set(connections)) == 1
    assert id(None) not in connections
