"""How a host becomes a node: a token made by a person, shown once, used once."""

from __future__ import annotations

import re
import time
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet import broker
from controlplane.fleet.credentials import digest, new_broker_password, new_join_token, new_node_token
from controlplane.fleet.errors import Invalid, JoinRefused, NotFound, Refused
from controlplane.fleet.models import JoinToken, Node
from controlplane.fleet.nudge import queue_of
from controlplane.fleet.publish import publish
from workers.joining import JoinReply, JoinRequest

LONGEST_TTL_S = 30 * 86400
REPEAT_WITHIN = timedelta(minutes=2)  # an agent whose answer was lost asks again with the same token
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:]{2,39}\]?")
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@transaction.atomic
def issue_join_token(*, node_name: str = "", ttl_s: int | None = None, actor: Actor) -> tuple[JoinToken, str]:
    """A token for one host, and its plain text: only its hash is kept. With `node_name` it joins or re-joins that node;
    without, it joins any name that is not taken."""
    ttl_s = settings.JOIN_TOKEN_TTL_S if ttl_s is None else ttl_s
    _check_token_request(node_name, ttl_s)
    plain = new_join_token()
    token = JoinToken.objects.create(
        token_hash=digest(plain),
        prefix=plain[:8],
        node_name=node_name,
        created_by=actor.user,
        expires_at=timezone.now() + timedelta(seconds=ttl_s),
    )
    record(actor, "issue-join-token", token, after={"node_name": node_name, "ttl_s": ttl_s})
    return token, plain


def join_command(token: str, *, node_name: str = "") -> str:
    """What to run on the host, exactly."""
    return f"python -m workers join {settings.PUBLIC_URL} --token {token}" + (
        f" --name {node_name}" if node_name else ""
    )


@transaction.atomic
def cancel_join_token(token_id: int, *, actor: Actor) -> JoinToken:
    """An unused token that shall not be used: it expires now."""
    token = JoinToken.objects.select_for_update().filter(pk=token_id).first()
    if token is None:
        raise NotFound("join token", token_id)
    if token.used_at is None and token.expires_at > timezone.now():
        token.expires_at = timezone.now()
        token.save(update_fields=["expires_at"])
        record(actor, "cancel-join-token", token)
    return token


def join(request: JoinRequest, *, address_seen: str) -> JoinReply:
    """Turn a join token into a node's own credentials. A refusal is recorded, then raised as JoinRefused."""
    if not _ADDRESS.fullmatch(request.address):
        raise JoinRefused("bad-address", 400, f"{request.address[:80]!r} is no host name or IP address.")
    if not request.instance or len(request.instance) > 64 or "\x00" in request.instance + request.agent_version:
        raise JoinRefused("bad-instance", 400, "The agent's instance is 1 to 64 plain characters.")
    node_token, broker_password = new_node_token(), new_broker_password()
    try:
        with transaction.atomic():
            node_or_refusal = _admit(request, address_seen, node_token)
    except IntegrityError:  # two hosts took one free name at once; the other one won
        node_or_refusal = _name_taken(request.name)
    if isinstance(node_or_refusal, JoinRefused):
        raise node_or_refusal
    node = node_or_refusal
    broker_url = _broker_url(node, broker_password)
    return JoinReply(
        node=node.pk,
        name=node.name,
        node_token=node_token,
        broker_url=broker_url,
        queue=queue_of(node.pk),
        period_s=settings.REPORT_PERIOD_S,
        at=time.time(),
    )


def _broker_url(node: Node, password: str) -> str:
    """After the commit, as it speaks to the broker. A broker without a user for the node is told in the trail."""
    url = broker.admit_node(node, password)
    if not url and settings.NODE_BROKER_URL:
        detail = f"{broker.state().detail} {node.name} learns of changes from the replies to its reports."
        record(Actor.system("join"), "broker-not-offered", node, detail=detail)
    return url


def _check_token_request(node_name: str, ttl_s: int) -> None:
    if node_name and not _NODE_NAME.fullmatch(node_name):
        fix = "Use up to 63 lower-case letters, digits, dots and dashes, beginning and ending with a letter or digit."
        raise Invalid([Problem("node-name", f"{node_name!r} is no node name.", fix)])
    if not 1 <= ttl_s <= LONGEST_TTL_S:
        raise Invalid(
            [Problem("ttl", f"A join token cannot live {ttl_s} s.", f"Use 1 to {LONGEST_TTL_S} s (30 days).")]
        )
    if Node.objects.filter(name=node_name, revoked=True).exists():
        raise Refused([Problem("node-revoked", f"{node_name} is revoked.", "Remove it first, then join it anew.")])


def _admit(request: JoinRequest, address_seen: str, node_token: str) -> Node | JoinRefused:
    token = JoinToken.objects.select_for_update().filter(token_hash=digest(request.token)).first()
    if token is None:
        return JoinRefused("join-token-unknown", 401, "This join token is not known here. Ask an admin for a new one.")
    repeat = _is_repeat(token, request)
    if not repeat and (refusal := _refusal_of_token(token, request, address_seen)):
        return refusal
    node = Node.objects.select_for_update().filter(name=request.name).first()
    if node and node.revoked:
        return JoinRefused(
            "node-revoked", 410, f"{node.name} is revoked. An admin can remove it, then it may join anew."
        )
    if node and not repeat and not token.node_name:
        return _name_taken(request.name)
    node = _write_node(node, request, digest(node_token), address_seen)
    token.used_at, token.used_by, token.used_from = timezone.now(), node, address_seen[:64]
    token.save(update_fields=["used_at", "used_by", "used_from"])
    return node


def _is_repeat(token: JoinToken, request: JoinRequest) -> bool:
    """The same agent again, because the answer got lost: it has not reported yet, so it holds no credentials."""
    node = token.used_by
    return (
        token.used_at is not None
        and timezone.now() - token.used_at < REPEAT_WITHIN
        and node is not None
        and (node.name, node.instance) == (request.name, request.instance)
        and (node.last_seen is None or node.last_seen < token.used_at)
    )


def _refusal_of_token(token: JoinToken, request: JoinRequest, address_seen: str) -> JoinRefused | None:
    if token.used_at is not None:
        return _refuse_used(token, request, address_seen)
    if token.expires_at <= timezone.now():
        return JoinRefused("join-token-expired", 403, "This join token has expired. Ask an admin for a new one.")
    if token.node_name and token.node_name != request.name:
        message = f"This join token is for {token.node_name}, not for {request.name}: use --name {token.node_name}."
        return JoinRefused("join-token-bound", 403, message)
    return None


def _refuse_used(token: JoinToken, request: JoinRequest, address_seen: str) -> JoinRefused:
    """A token seen twice has been copied: whoever came first may be the thief."""
    node = token.used_by.name if token.used_by else "a node that is gone"
    detail = (
        f"The token was first used by {node} from {token.used_from}, and again by a host that calls itself "
        f"{request.name} from {address_seen}. If the first was not yours, revoke {node}."
    )
    seen = {"name": request.name, "address": address_seen}
    known = AuditEvent.objects.filter(verb="join-token-reused", subject_type="jointoken", subject_id=token.pk)
    if not known.filter(after=seen).exists():  # once for each host, however often it tries
        record(Actor.system("join"), "join-token-reused", token, after=seen, detail=detail)
    return JoinRefused(
        "join-token-used",
        403,
        f"This join token was used already, by {node}. If that was not you, somebody copied it: have {node} revoked, "
        "then ask for a new token.",
    )


def _name_taken(name: str) -> JoinRefused:
    message = f"There is a node {name} already. Use another --name, or a join token issued for {name} to re-join it."
    return JoinRefused("node-exists", 409, message)


def _write_node(node: Node | None, request: JoinRequest, token_hash: str, address_seen: str) -> Node:
    """Re-joining keeps rows, assignments and generation; the old token opens nothing more."""
    verb = "rejoin" if node else "join"
    before = {"address": node.address} if node else None
    node = node or Node(name=request.name)
    node.address, node.token_hash = request.address.strip("[]"), token_hash
    node.instance, node.boot, node.last_seq = request.instance, "", 0
    node.agent_version = request.agent_version[:64]
    node.save()
    after = {"address": node.address, "from": address_seen}
    record(Actor.agent(node.name), verb, node, before=before, after=after)
    publish(node)
    return node
