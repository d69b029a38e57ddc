"""The websocket at /ws/live: frames go out; what comes in says what of them is shown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from importlib import import_module
from typing import Any, NoReturn

import msgspec
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
from controlplane.telemetry.frame import BLANK, MOST_BYTES, Frame, Lens, View, Wants
from controlplane.telemetry.hub import Hub

log = structlog.get_logger(__name__)

NOT_LOGGED_IN, NO_ROLE, NOT_UNDERSTOOD, TOO_BIG = 4401, 4403, 1008, 1009
TOO_SLOW = 1013
QUEUE = 4  # frames a socket may lag behind; then it misses some, which its page sees as a gap
SEND_WITHIN_S = 5.0  # then the socket is dropped
MOST_MESSAGES, WITHIN_S = 100, 10.0  # a page that scrolls sends a few a second
ASK_AGAIN_S = 30.0  # who was logged out or lost the role is dropped within this


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """One watching page. It has no channel of its own: the hub fills its short queue."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=QUEUE)
        self._asked_at = 0.0
        self._lens = Lens()
        self._heard: deque[float] = deque(maxlen=MOST_MESSAGES)

    @property
    def wants(self) -> Wants:
        return self._lens.wants

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope, self.base_send, self.channel_layer = scope, send, None
        try:
            await await_many_dispatch([receive, self._queue.get], self.dispatch)
        except StopConsumer:
            return
        finally:
            self._hub.leave(self)

    def give(self, frame: Frame) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait({"type": "live.frame", "frame": frame})

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
        if self.scope.get("query_string") == b"view":  # it is going to say what it shows
            self._lens = Lens(BLANK)
        self._hub.join(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        if len(text_data or bytes_data or "") > MOST_BYTES:
            await self._refuse(TOO_BIG, f"a message may have {MOST_BYTES} bytes")
        if self._talks_too_much():
            await self._refuse(NOT_UNDERSTOOD, f"more than {MOST_MESSAGES} messages in {WITHIN_S:.0f} s")
        try:
            view = msgspec.json.decode(text_data or b"", type=View)
        except msgspec.MsgspecError as error:
            await self._refuse(NOT_UNDERSTOOD, str(error))
        self._lens.turn(view)
        if self._hub.last and (text := self._lens.catch_up(self._hub.last)):
            await self._send_text(text)

    def _talks_too_much(self) -> bool:
        now = time.monotonic()
        is_full = len(self._heard) == MOST_MESSAGES and now - self._heard[0] < WITHIN_S
        self._heard.append(now)
        return is_full

    async def _refuse(self, code: int, reason: str) -> NoReturn:
        await self.close(code, reason.encode()[:120].decode(errors="ignore"))  # a close frame holds no more
        raise StopConsumer

    async def live_frame(self, message: dict[str, Any]) -> None:
        if time.monotonic() - self._asked_at > ASK_AGAIN_S:
            self._asked_at = time.monotonic()
            if code := await _refusal(await _user_now(self.scope)):
                await self.live_drop({"code": code})
        if text := self._lens.see(message["frame"]):
            await self._send_text(text)

    async def _send_text(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self.send(text_data=text)
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
