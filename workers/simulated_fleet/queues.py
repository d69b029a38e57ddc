"""The nodes' queues at the broker, each read by the node's own user, as its agent would: a spec arrives at once."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from workers.app import AGAIN_S, TASK
from workers.contract import NodeSpec

log = logging.getLogger(__name__)
WAIT_S = 10  # for a message; then the wait begins anew, so that a dead connection is found out
CONNECT_S = 3.0


class BadMessage(Exception):
    """No spec for a node is in it."""


class _Headers(msgspec.Struct):
    task: str
    expires: datetime | None = None


class _Properties(msgspec.Struct):
    body_encoding: str = ""


class _Envelope(msgspec.Struct):
    """What Celery puts on the queue."""

    body: str
    headers: _Headers
    properties: _Properties


_open = msgspec.json.Decoder(_Envelope).decode
_read = msgspec.json.Decoder(tuple[tuple[NodeSpec], dict[str, Any], Any]).decode


def read(message: bytes | str, now: float) -> NodeSpec | None:
    """The spec in one message of Celery's; None where it is too old by `now` (unix s). Raises BadMessage."""
    try:
        envelope = _open(message)
        if envelope.headers.task != TASK:
            raise BadMessage(f"a task {envelope.headers.task!r} is none of an agent's")
        if envelope.headers.expires is not None and envelope.headers.expires.timestamp() < now:
            return None
        body = envelope.body.encode()
        ((spec,), _, _) = _read(base64.b64decode(body) if envelope.properties.body_encoding == "base64" else body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadMessage(str(error)) from error
    return spec


async def listen(broker_url: str, queue: str, take: Callable[[NodeSpec], None]) -> None:
    """Hand each spec that comes to `take`, until cancelled. While the broker is away it is tried again and again, and
    the replies to reports carry the specs, as with any agent."""
    client = redis.asyncio.Redis.from_url(
        broker_url,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=WAIT_S + CONNECT_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )
    try:
        while True:
            try:
                found = await client.brpop([queue], timeout=WAIT_S)
            except (redis.RedisError, OSError) as error:
                log.debug("%s: the broker does not answer: %s", queue, error)
                await asyncio.sleep(AGAIN_S * random.uniform(0.5, 1.5))  # noqa: S311 - not all at once
                continue
            if found is not None:
                _hand_on(found[1], queue, take)
    finally:
        await client.aclose()


def _hand_on(message: bytes | str, queue: str, take: Callable[[NodeSpec], None]) -> None:
    try:
        spec = read(message, time.time())
    except BadMessage as error:
        log.error("%s: a message is dropped: %s", queue, error)
        return
    if spec is not None:
        take(spec)
