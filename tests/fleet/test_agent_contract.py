"""The agent's own client against the real uplink: each answer means to the agent what we mean by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from controlplane.api import agent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Node
from tests.factories import make_deployment, make_node, make_partition, token_of
from tests.fleet.reporting import report_of
from workers.joining import JoinRequest
from workers.uplink import Answer, JoinFailed, Outcome, Uplink, join

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.1"


@pytest.fixture
def wire() -> Iterator[httpx.Client]:
    agent._joins.clear()
    with httpx.Client(transport=httpx.MockTransport(_into_django)) as client:
        yield client


def _into_django(request: httpx.Request) -> httpx.Response:
    answer = Client().post(
        request.url.path, request.content, content_type=request.headers["Content-Type"],
        headers={"Authorization": request.headers.get("Authorization", "")},
    )  # fmt: skip
    return httpx.Response(answer.status_code, headers=dict(answer.items()), content=answer.content)


def tell(wire: httpx.Client, node: Node, token: str | None = None, **fields: Any) -> Outcome:
    return Uplink(URL, token or token_of(node), wire).report(report_of(node, **fields))


def ask(wire: httpx.Client, token: str, name: str = "host-1") -> Any:
    request = JoinRequest(token=token, name=name, address="127.0.0.1", instance="i", agent_version="0.1.0", at=0.0)
    return join(wire, URL, request)


def test_joining_and_the_first_report(wire: httpx.Client, actor: Actor) -> None:
    _, plain = services.issue_join_token(actor=actor)

    reply = ask(wire, plain)
    outcome = tell(wire, Node.objects.get(), reply.node_token, instance="i", generation=0)

    assert (reply.name, reply.period_s) == ("host-1", 1.0)
    assert outcome.answer is Answer.OK
    assert outcome.reply.spec.generation == 1


def test_a_newer_spec_comes_with_the_answer(wire: httpx.Client, actor: Actor) -> None:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)

    outcome = tell(wire, partition.node, generation=0)

    assert [replica.deployment for replica in outcome.reply.spec.replicas] == ["chat"]


def test_an_unknown_token(wire: httpx.Client) -> None:
    assert tell(wire, make_node(), "fbn-guess").answer is Answer.UNKNOWN_TOKEN


def test_a_revoked_node(wire: httpx.Client, actor: Actor) -> None:
    node = make_node()
    services.revoke_node(node.pk, actor=actor)

    assert tell(wire, node).answer is Answer.REVOKED


def test_a_second_agent(wire: httpx.Client) -> None:
    node = make_node()
    tell(wire, node)

    assert tell(wire, node, instance="another-home").answer is Answer.CONFLICT


def test_a_database_that_fails(wire: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise agent.DatabaseError

    node = make_node()
    monkeypatch.setattr(agent, "_node_of", fail)

    outcome = tell(wire, node)

    assert (outcome.answer, outcome.wait_s) == (Answer.SLOW_DOWN, 5.0)


def test_a_report_that_is_refused_as_such(wire: httpx.Client) -> None:
    node = make_node()

    outcome = tell(wire, node, generation=2**60)

    assert outcome.answer is Answer.REFUSED
    assert "No generation" in outcome.detail


def test_a_refused_join_says_why(wire: httpx.Client, actor: Actor) -> None:
    _, plain = services.issue_join_token(node_name="host-2", actor=actor)

    with pytest.raises(JoinFailed, match="is for host-2, not for host-1"):
        ask(wire, plain)
