"""How a host becomes a node, and every way in which it may not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.credentials import digest
from controlplane.fleet.errors import Invalid, JoinRefused, Refused
from controlplane.fleet.models import JoinToken, Node
from tests.factories import make_node, make_partition, token_of
from workers.joining import JoinReply, JoinRequest

pytestmark = pytest.mark.django_db


def ask(token: str, name: str = "host-1", *, seen: str = "10.0.0.7", **fields: Any) -> JoinReply:
    defaults = {"address": "10.0.0.7", "instance": f"instance-{name}", "agent_version": "0.1.0", "at": 0.0}
    return services.join(JoinRequest(token=token, name=name, **(defaults | fields)), address_seen=seen)


def issue(actor: Actor, **values: Any) -> str:
    return services.issue_join_token(actor=actor, **values)[1]


def refused(*arguments: Any, **fields: Any) -> JoinRefused:
    with pytest.raises(JoinRefused) as error:
        ask(*arguments, **fields)
    return error.value


def test_a_token_makes_a_node_with_credentials_of_its_own(actor: Actor) -> None:
    reply = ask(issue(actor))

    node = Node.objects.get(name="host-1")
    assert (reply.node, reply.name, reply.queue) == (node.pk, "host-1", f"node.{node.pk}")
    assert node.token_hash == digest(reply.node_token)
    assert (node.address, node.generation, node.last_seen) == ("10.0.0.7", 1, None)
    assert AuditEvent.objects.get(verb="join").source == "agent"


def test_only_the_hash_of_a_join_token_is_kept(actor: Actor) -> None:
    plain = issue(actor)

    token = JoinToken.objects.get()

    assert token.token_hash == digest(plain)
    assert plain not in str(token.__dict__) + str(AuditEvent.objects.get().__dict__)
    assert plain.startswith(token.prefix)


def test_an_unknown_token_is_refused() -> None:
    refusal = refused("fbj-guess")

    assert (refusal.code, refusal.status) == ("join-token-unknown", 401)
    assert not Node.objects.exists()


def test_an_expired_token_is_refused(actor: Actor) -> None:
    plain = issue(actor)
    JoinToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert (refused(plain).code, refused(plain).status) == ("join-token-expired", 403)


def test_a_cancelled_token_is_refused(actor: Actor) -> None:
    token, plain = services.issue_join_token(actor=actor)
    services.cancel_join_token(token.pk, actor=actor)

    assert refused(plain).code == "join-token-expired"


def test_a_used_token_is_a_sign_of_theft(actor: Actor) -> None:
    plain = issue(actor)
    ask(plain, "host-1", seen="10.0.0.7")

    refusal = refused(plain, "intruder", seen="10.6.6.6")

    assert (refusal.code, refusal.status) == ("join-token-used", 403)
    assert "have host-1 revoked" in refusal.message
    event = AuditEvent.objects.get(verb="join-token-reused")
    assert event.after == {"name": "intruder", "address": "10.6.6.6"}
    assert "If the first was not yours, revoke host-1" in event.detail
    assert not Node.objects.filter(name="intruder").exists()


def test_theft_is_told_once_for_each_host_however_often_it_tries(actor: Actor) -> None:
    plain = issue(actor)
    ask(plain)

    for seen in ("10.6.6.6", "10.6.6.6", "10.6.6.7"):
        refused(plain, "intruder", seen=seen)

    assert AuditEvent.objects.filter(verb="join-token-reused").count() == 2


def test_an_agent_whose_answer_got_lost_may_ask_again(actor: Actor) -> None:
    plain = issue(actor)
    lost = ask(plain)

    again = ask(plain)

    assert again.node == lost.node
    assert Node.objects.get().token_hash == digest(again.node_token)
    assert not AuditEvent.objects.filter(verb="join-token-reused").exists()


def test_once_the_node_has_reported_asking_again_is_theft(actor: Actor) -> None:
    plain = issue(actor)
    ask(plain)
    Node.objects.update(last_seen=timezone.now())

    assert refused(plain).code == "join-token-used"


def test_asking_again_later_is_theft(actor: Actor) -> None:
    plain = issue(actor)
    ask(plain)
    JoinToken.objects.update(used_at=timezone.now() - timedelta(minutes=3))

    assert refused(plain).code == "join-token-used"


def test_a_token_of_one_node_admits_no_other(actor: Actor) -> None:
    plain = issue(actor, node_name="host-1")

    refusal = refused(plain, "host-2")

    assert (refusal.code, refusal.status) == ("join-token-bound", 403)
    assert "--name host-1" in refusal.message
    assert ask(plain, "host-1").name == "host-1"


def test_a_name_that_is_taken_is_not_taken_over_with_any_token(actor: Actor) -> None:
    make_node("host-1")

    refusal = refused(issue(actor))

    assert (refusal.code, refusal.status) == ("node-exists", 409)
    assert JoinToken.objects.get().used_at is None


def test_a_token_of_an_existing_node_lets_it_rejoin_and_keeps_what_it_has(actor: Actor) -> None:
    node = make_node("host-1", generation=7, labels={"rack": "1"}, last_seq=900)
    partition = make_partition(node, role="decode", generation=5)

    reply = ask(issue(actor, node_name="host-1"), instance="instance-after-reinstall")

    node.refresh_from_db()
    partition.refresh_from_db()
    assert reply.node == node.pk
    assert node.generation >= 7
    assert (node.labels, node.instance, node.boot, node.last_seq) == ({"rack": "1"}, "instance-after-reinstall", "", 0)
    assert partition.role == "decode"
    assert node.token_hash not in ("", digest(token_of(node)))
    assert AuditEvent.objects.filter(verb="rejoin").exists()


def test_a_revoked_node_does_not_come_back(actor: Actor) -> None:
    plain = issue(actor, node_name="host-1")
    make_node("host-1", revoked=True)

    refusal = refused(plain)

    assert (refusal.code, refusal.status) == ("node-revoked", 410)


def test_no_token_is_issued_for_a_revoked_node(actor: Actor) -> None:
    make_node("host-1", revoked=True)

    with pytest.raises(Refused, match="host-1 is revoked"):
        issue(actor, node_name="host-1")


@pytest.mark.parametrize(
    "values", [{"ttl_s": 0}, {"ttl_s": 31 * 86400}, {"node_name": "Bad Name"}, {"node_name": "-a"}]
)
def test_tokens_that_make_no_sense_are_invalid(actor: Actor, values: dict) -> None:
    with pytest.raises(Invalid):
        issue(actor, **values)


@pytest.mark.parametrize("address", ["", "host/path", "a b", "user@host", "host:80/x", "x" * 256])
def test_an_address_that_is_none_is_refused(actor: Actor, address: str) -> None:
    assert refused(issue(actor), address=address).code == "bad-address"


@pytest.mark.parametrize("address", ["10.0.0.7", "gpu-1.example", "fd00::7", "[fd00::7]"])
def test_names_and_addresses_of_both_kinds_are_taken(actor: Actor, address: str) -> None:
    ask(issue(actor), address=address)

    assert Node.objects.get().address == address.strip("[]")


def test_without_a_broker_for_nodes_reports_alone_carry_the_specs(actor: Actor, settings: Any) -> None:
    settings.NODE_BROKER_URL = ""

    assert ask(issue(actor)).broker_url == ""
