"""Counts and times the answers to nodes' reports, outside of whatever answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from controlplane.telemetry import process_figures

PATH = "/agent/v1/report"
Message = dict[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]


class ReportTiming:
    """The ASGI application around `app`."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            if status:  # else the agent hung up first
                process_figures.report(status, perf_counter() - began)
