"""The websocket at /ws/live: frames go out, nothing comes in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib import import_module
from typing import Any

import structlog
from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.utils import await_many_dispatch
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from controlplane.audit import roles
from controlplane.audit.bearer import holder
from controlplane.telemetry.hub import Hub

log = structlog.get_logger(__name__)

NOT_LOGGED_IN, NO_ROLE, NOTHING_TO_SAY = 4401, 4403, 1008
TOO_SLOW = 1013
QUEUE = 4  # frames a socket may lag behind; then it misses some, which its page sees as a gap
SEND_WITHIN_S = 5.0  # then the socket is dropped
ASK_AGAIN_S = 30.0  # who was logged out or lost the role is dropped within this


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """One watching page. It has no channel of its own: the hub fills its short queue."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=QUEUE)
        self._asked_at = 0.0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope, self.base_send, self.channel_layer = scope, send, None
        try:
            await await_many_dispatch([receive, self._queue.get], self.dispatch)
        except StopConsumer:
            return
        finally:
            self._hub.leave(self)

    def give(self, text: str) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait({"type": "live.frame", "text": text})

    def drop(self, code: int) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait({"type": "live.drop", "code": code})

    async def connect(self) -> None:
        """Accepts first: a browser learns a close code only of a socket that was open."""
        await self.accept()
        if code := await _refusal(self.scope["user"]):
            await self.close(code)
            return
        self._asked_at = time.monotonic()
        self._hub.join(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        await self.close(NOTHING_TO_SAY)
        raise StopConsumer

    async def live_frame(self, message: dict[str, Any]) -> None:
        if time.monotonic() - self._asked_at > ASK_AGAIN_S:
            self._asked_at = time.monotonic()
            if code := await _refusal(await _user_now(self.scope)):
                await self.live_drop({"code": code})
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self.send(text_data=message["text"])
        except TimeoutError:
            log.info("slow watcher dropped", user=self.scope["user"].get_username())
            await self.live_drop({"code": TOO_SLOW})

    async def live_drop(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.close(message["code"])
        raise StopConsumer


async def _refusal(user: AbstractBaseUser | AnonymousUser) -> int | None:
    if not user.is_authenticated:
        return NOT_LOGGED_IN
    return None if await database_sync_to_async(roles.allows)(user, "view") else NO_ROLE


async def _user_now(scope: dict[str, Any]) -> AbstractBaseUser | AnonymousUser:
    """The user of the token or the session, as the database has it now."""
    if bearer := scope.get("bearer"):
        return await database_sync_to_async(holder)(bearer)
    key = scope["cookies"].get(settings.SESSION_COOKIE_NAME)
    session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    return await get_user({**scope, "session": session})
