"""A browser tab's socket to the live view, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.contrib.auth.models import User
from django.test import Client

from controlplane.telemetry.hub import Hub
from controlplane.telemetry.sockets import BearerOrSession, routes

pytestmark = pytest.mark.django_db(transaction=True)


in_thread = database_sync_to_async


def cookie_of(user: User | None) -> str:
    if user is None:
        return ""
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return f"sessionid={client.cookies['sessionid'].value}"


class Page(ApplicationCommunicator):
    """A browser tab's socket."""

    def __init__(
        self,
        to: Hub,
        cookie: str,
        origin: str = "http://testserver",
        path: str = "/ws/live",
        *,
        token: str | None = None,
        query: bytes = b"",
    ) -> None:
        app = BearerOrSession(URLRouter(routes(to)))
        headers = [(b"origin", origin.encode()), (b"cookie", cookie.encode())]
        if token is not None:
            headers = [(b"authorization", f"Token {token}".encode())]
        super().__init__(app, {"type": "websocket", "path": path, "query_string": query, "headers": headers})

    async def connect(self) -> bool:
        await self.send_input({"type": "websocket.connect"})
        return (await self.receive_output(timeout=20))["type"] == "websocket.accept"

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1001})
        await self.wait(timeout=20)

    async def frame(self) -> dict[str, Any]:
        message = await self.receive_output(timeout=20)
        return json.loads(message["text"])

    async def closed(self) -> int:
        """The code it is closed with, whatever frames come before."""
        while True:
            message = await self.receive_output(timeout=20)
            if message["type"] == "websocket.close":
                return message["code"]
