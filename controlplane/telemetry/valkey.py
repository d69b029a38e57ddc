"""Connections to Valkey, and whether it answers. Nothing of value lives there: all but speed goes on without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.asyncio
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger(__name__)

PREFIX = "forebay:"
CONNECT_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 1.0
REST_AFTER_FAILURE_S = 2.0  # a dead Valkey costs one caller a timeout, not each of them

_clients: dict[str, redis.Redis] = {}
_rest_until: dict[str, float] = {}


class Unreachable(Exception):
    """Valkey does not answer, or refuses; go on without it."""


@contextmanager
def connection() -> Iterator[redis.Redis]:
    """A shared, thread-safe client. Every failure inside the block leaves it as Unreachable."""
    url = settings.REDIS_URL
    if time.monotonic() < _rest_until.get(url, 0.0):
        raise Unreachable("Valkey failed a moment ago")
    try:
        yield _client(url)
    except redis.RedisError as error:
        if url not in _rest_until:
            log.warning("valkey unreachable", error=str(error))
        _rest_until[url] = time.monotonic() + REST_AFTER_FAILURE_S
        raise Unreachable(str(error)) from error
    if _rest_until.pop(url, None) is not None:
        log.info("valkey answers again")


def async_client() -> redis.asyncio.Redis:
    """A client of the running loop; whoever asks for it closes it."""
    return redis.asyncio.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
    )


def _client(url: str) -> redis.Redis:
    client = _clients.get(url)
    if client is None:
        client = _clients[url] = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    return client


def reset() -> None:
    """Close the shared clients and forget failures; the next call connects anew."""
    for client in list(_clients.values()):  # other threads may be adding theirs
        client.close()
    _clients.clear()
    _rest_until.clear()
