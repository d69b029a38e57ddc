"""Threads that answer requests and keep their database connection, instead of a new thread and connection for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

KEPT = 8  # lanes that wait for the next request; more at once have one each, which ends with theirs
KEEPING = {"CONN_MAX_AGE": 60.0, "CONN_HEALTH_CHECKS": True}


def keep_connections() -> None:
    """For threads that ask for little and often: a connection for each time would cost more than what it is asked."""
    for alias in connections:
        connections.settings[alias] |= KEEPING


class Lanes:
    """Around Django: each request has one thread for itself while it is answered, and the next one has it after that.
    Those of between `start` and `stop` keep their database connections."""

    def __init__(self, app: App, *, kept: int = KEPT) -> None:
        self._app, self._kept = app, kept
        self._free: list[ThreadPoolExecutor] = []
        self._keep: Callable[[], None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        lane = self._free.pop() if self._free else ThreadPoolExecutor(1, "lane", initializer=self._keep)
        try:
            async with ThreadSensitiveContext(executor=lane):
                await self._app(scope, receive, send)
        finally:
            self._give_back(lane)

    def start(self) -> None:
        self._end_all()
        self._keep = _keep_mine

    def stop(self) -> None:
        self._keep = None
        self._end_all()

    def _end_all(self) -> None:
        while self._free:
            _end(self._free.pop())

    def _give_back(self, lane: ThreadPoolExecutor) -> None:
        if len(self._free) < self._kept:
            self._free.append(lane)
        else:
            _end(lane, wait=False)


def _keep_mine() -> None:
    """As `keep_connections`, for this thread's alone."""
    for connection in connections.all():
        connection.settings_dict = {**connection.settings_dict, **KEEPING}


def _end(lane: ThreadPoolExecutor, *, wait: bool = True) -> None:
    lane.submit(connections.close_all)
    lane.shutdown(wait=wait)


class OneHop(ASGIHandler):
    """Django's, with all middleware and the view in one call on one thread: by itself it goes from the loop to a thread
    and back once for each kind that follows the other. Bodies that are streamed are still read on the loop."""

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(self.get_response)(request)
