"""Who may do what on the broker: each node gets a user of its own that reaches its own queue and nothing else.

The broker keeps these users in memory, so they are set again at start-up and by each sweep. Where it is down, or where
we may not set users, nodes live by the replies to their reports; `state()` tells people so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from django.conf import settings

from controlplane.fleet.credentials import digest
from controlplane.fleet.models import Node
from controlplane.fleet.nudge import GIVE_UP_S, queue_of

logger = logging.getLogger(__name__)
# What a Celery worker needs to take tasks from one queue, and to put back what it took but did not finish.
COMMANDS = (
    "ping", "select", "client|setinfo", "client|setname", "client|id", "multi", "exec", "discard", "watch", "unwatch",
    "brpop", "rpop", "lpush", "rpush", "llen", "sadd", "smembers", "hset", "hget", "hdel", "zadd", "zrem", "zrange",
    "zrevrangebyscore", "set", "get", "del", "expire", "pexpire", "eval", "evalsha", "script|load",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BrokerState:
    """`acl`: applied, off (by setting), refused (we may not set users) or unknown (not reached yet)."""

    reachable: bool
    acl: str
    detail: str = ""

    @property
    def serves_nodes(self) -> bool:
        return self.reachable and self.acl in {"applied", "off"}


LOOK_AGAIN_S = 30.0
_UNKNOWN = BrokerState(reachable=False, acl="unknown", detail="The broker has not been tried yet.")
_known: dict[str, Any] = {"state": _UNKNOWN, "at": None}


def state() -> BrokerState:
    """What this process last found out."""
    return _known["state"]


def look() -> BrokerState:
    """What is so now, or was within the last half minute: for people."""
    if _known["at"] is None or time.monotonic() - _known["at"] > LOOK_AGAIN_S:
        apply_acls()
    return state()


def reset() -> None:
    _known.update(state=_UNKNOWN, at=None)


def admit_node(node: Node, password: str) -> str:
    """Make the node's user and return the URL it connects to; "" where the broker has none for it.

    When the broker is down the node gets its URL all the same: the sweep makes the user once the broker is back."""
    if not settings.NODE_BROKER_URL:
        return ""
    if not settings.BROKER_ACL:
        return settings.NODE_BROKER_URL
    node.broker_hash = digest(password)
    if _set_users([node]).acl == "refused":
        node.broker_hash = ""
    node.save(update_fields=["broker_hash"])
    return _node_url(node, password) if node.broker_hash else ""


def apply_acls() -> BrokerState:
    """Make every node's user as it should be, again and again: setting what is set already changes nothing."""
    if not settings.BROKER_ACL or not settings.NODE_BROKER_URL:
        return _note(_ping())
    return _set_users(Node.objects.filter(revoked=False).exclude(broker_hash="").only("pk", "broker_hash"))


def forget_node(node_id: int) -> None:
    """Delete the node's user, which also closes its connections, and what is left in its queue."""
    if not settings.BROKER_ACL or not settings.NODE_BROKER_URL:
        return
    try:
        with _client() as client:
            client.acl_deluser(user_of(node_id))
            client.delete(queue_of(node_id))
    except redis.RedisError as error:
        logger.warning("could not delete the broker user of node %s: %s", node_id, error)


def user_of(node_id: int) -> str:
    return f"node-{node_id}"


def rules_of(node_id: int, password_hash: str) -> list[str]:
    """ACL rules, beginning from nothing. Keys are named exactly: `node.1*` would open node.10's queue to node 1."""
    queue = queue_of(node_id)
    keys = [queue, f"{queue}\x06\x16*", f"{queue}.*", f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}"]
    return [
        "reset",
        "on",
        f"#{password_hash}",
        *(f"~{key}" for key in keys),
        *(f"+{command}" for command in COMMANDS),
    ]


def _set_users(nodes: Iterable[Node]) -> BrokerState:
    try:
        with _client() as client:
            pipeline = client.pipeline(transaction=False)
            for node in nodes:
                pipeline.execute_command("ACL", "SETUSER", user_of(node.pk), *rules_of(node.pk, node.broker_hash))
            pipeline.ping()
            pipeline.execute()
        found = BrokerState(reachable=True, acl="applied")
    except redis.ResponseError as error:  # no ACL command there, or not for us
        found = BrokerState(reachable=True, acl="refused", detail=f"The broker lets us make no users: {error}")
    except redis.RedisError as error:
        found = BrokerState(reachable=False, acl=state().acl, detail=f"The broker does not answer: {error}")
    return _note(found)


def _ping() -> BrokerState:
    try:
        with _client() as client:
            client.ping()
    except redis.RedisError as error:
        return BrokerState(reachable=False, acl="off", detail=f"The broker does not answer: {error}")
    return BrokerState(reachable=True, acl="off")


def _note(found: BrokerState) -> BrokerState:
    if found != state() and not found.serves_nodes:
        logger.warning("%s Nodes learn of changes from the replies to their reports.", found.detail)
    _known.update(state=found, at=time.monotonic())
    return found


def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=GIVE_UP_S, socket_timeout=2 * GIVE_UP_S, retry=None
    )


def _node_url(node: Node, password: str) -> str:
    """NODE_BROKER_URL with the node's own user; whatever credentials it carries stay here."""
    parts = urlsplit(settings.NODE_BROKER_URL)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user_of(node.pk)}:{quote(password, safe='')}@{host}"))
