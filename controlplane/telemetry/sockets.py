"""Websocket addresses."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, re_path

from controlplane.telemetry.consumers import LiveConsumer
from controlplane.telemetry.hub import Hub


def routes(hub: Hub) -> list[URLPattern]:
    return [
        re_path(r"^ws/live$", LiveConsumer.as_asgi(hub=hub)),
        re_path(r"", _no_such_socket),
    ]


async def _no_such_socket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Refused before it is accepted: 403, and no traceback in the log for a stranger's guess."""
    await send({"type": "websocket.close"})
