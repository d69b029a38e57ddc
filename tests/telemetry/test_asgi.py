"""The web process as uvicorn runs it: over real sockets, started and stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import Client

from tests.factories import make_node, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def web_process() -> AsyncIterator[int]:
    """controlplane.asgi under uvicorn on a free port of this machine; yields the port."""
    from controlplane.asgi import application

    config = uvicorn.Config(application, lifespan="on", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not serving.done(), "the web process did not start"
        await asyncio.sleep(0.02)
    yield listener.getsockname()[1]
    server.should_exit = True
    await asyncio.wait_for(serving, 10)


def login() -> str:
    client = Client()
    client.force_login(make_user("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    return f"sessionid={client.cookies['sessionid'].value}"


async def test_the_web_process_serves_pages_and_frames_and_stops_cleanly(
    live_valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = await sync_to_async(login)()
    node = await sync_to_async(make_node)()
    async with web_process() as port:
        assert "telemetry-recorder" in {thread.name for thread in threading.enumerate()}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"cookie": cookie}) as client:
            assert (await client.get("/api/v1/live")).json()["nodes"][0]["name"] == node.name
        page = await websockets.connect(
            f"ws://127.0.0.1:{port}/ws/live", origin=f"http://127.0.0.1:{port}", additional_headers={"cookie": cookie}
        )
        frame = json.loads(await asyncio.wait_for(page.recv(), 5))
        assert (frame["type"], frame["seq"], frame["nodes"][0]["name"]) == ("frame", 1, node.name)
        for origin in ("http://evil.example", None):
            with pytest.raises(websockets.InvalidStatus, match="403"):
                await websockets.connect(f"ws://127.0.0.1:{port}/ws/live", origin=origin)
        stranger = await websockets.connect(f"ws://127.0.0.1:{port}/ws/live", origin=f"http://127.0.0.1:{port}")
        await asyncio.wait_for(stranger.wait_closed(), 5)
        assert stranger.close_code == 4401
    await asyncio.wait_for(page.wait_closed(), 5)
    assert page.close_code in (1012, 1013)  # come again later
    assert not {"telemetry-recorder", "telemetry-outbox", "fleet-heard"} & {
        thread.name for thread in threading.enumerate()
    }
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    await sync_to_async(connections.close_all)()
