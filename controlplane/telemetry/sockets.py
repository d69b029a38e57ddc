"""Websocket addresses."""

from __future__ import annotations

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import URLPattern, re_path

from controlplane.audit.bearer import holder
from controlplane.telemetry.consumers import LiveConsumer
from controlplane.telemetry.hub import Hub


class BearerOrSession:
    """A program comes with a token in the Authorization header, which no browser sends by itself; all others with the
    session of a browser, and then from our own pages only."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._of_browsers = AllowedHostsOriginValidator(AuthMiddlewareStack(inner))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        header = dict(scope["headers"]).get(b"authorization")
        if header is None:
            await self._of_browsers(scope, receive, send)
            return
        user = await database_sync_to_async(holder)(header)
        await self._inner({**scope, "user": user, "bearer": header}, receive, send)


def routes(hub: Hub) -> list[URLPattern]:
    return [
        re_path(r"^ws/live$", LiveConsumer.as_asgi(hub=hub)),
        re_path(r"", _no_such_socket),
    ]


async def _no_such_socket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Refused before it is accepted: 403, and no traceback in the log for a stranger's guess."""
    await send({"type": "websocket.close"})
