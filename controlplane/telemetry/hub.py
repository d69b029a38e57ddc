"""The watching pages of this web process, and the frames they get. It works only while somebody watches.

Of all web processes with watchers one leads: it makes a frame a second with what the watchers of all of them want, and
sends it to the group; each process passes what it hears to its own watchers. When Valkey fails all are told to poll."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import or_
from typing import Any, Protocol

import msgspec
import structlog
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import DatabaseError
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from controlplane.telemetry import valkey, wants
from controlplane.telemetry.frame import NOTHING, Frame, Wants
from controlplane.telemetry.frames import Frames
from controlplane.telemetry.live import RequestSummary

log = structlog.get_logger(__name__)

GROUP = "live"
FRAME_EVERY_S = 1.0
LEAD_FOR_S = 5.0  # a leader that dies is replaced after this
PATIENCE_S = 2.0  # a Valkey that hangs is one that fails
STOP_WITHIN_S = 5.0
TRY_AGAIN_LATER = 1013
# One thread: frames are made one after another, over one database connection.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="telemetry-frames")

_TROUBLE = (RedisError, valkey.Unreachable, OSError)  # lost locks and timeouts are among them


_decode = msgspec.msgpack.Decoder(Frame).decode


class Watcher(Protocol):
    """A socket. No call may block or raise."""

    @property
    def wants(self) -> Wants: ...
    def give(self, frame: Frame) -> None: ...
    def drop(self, code: int) -> None: ...


class Hub:
    """One task works from the first watcher to the last. It ends by looking, not by being cancelled: a cancellation
    that meets a thread or a connection half way may be lost."""

    def __init__(self, summary: RequestSummary | None = None) -> None:
        self._summary = summary
        self._watchers: set[Watcher] = set()
        self._nobody = asyncio.Event()
        self._name = secrets.token_hex(8)
        self.last: Frame | None = None  # for a watcher that shows something else now
        self._troubled = False
        self._work: asyncio.Task[None] | None = None

    @property
    def watching(self) -> int:
        return len(self._watchers)

    def join(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)
        self._nobody.clear()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run(), name="telemetry-hub")

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            self.last = None
            self._nobody.set()

    async def stop(self) -> None:
        """The process ends: watchers are told to come again, to another one or later."""
        self._drop_all()
        if self._work is not None:
            _, stuck = await asyncio.wait({self._work}, timeout=STOP_WITHIN_S)
            for work in stuck:
                work.cancel()
        await _gently(get_channel_layer().flush)

    async def _run(self) -> None:
        while self._watchers:
            layer = get_channel_layer()
            client = valkey.async_client()
            lock = client.lock(f"{valkey.PREFIX}live:leader", timeout=LEAD_FOR_S, blocking=False)
            try:
                await self._work_with(layer, lock)
            except _TROUBLE as error:
                if not self._troubled:  # told once, not at each page that tries again
                    log.warning("live view without valkey: pages poll", error=str(error))
                self._troubled = True
                self._drop_all()
                await _gently(layer.flush)  # else it goes on trying to receive from the dead connection
            except Exception:
                log.exception("live view stopped: pages poll")
                self._drop_all()
            finally:
                await _gently(lock.release)  # at once, so that another process need not wait for its end
                await _gently(client.aclose)

    async def _work_with(self, layer: Any, lock: Lock) -> None:
        async with asyncio.timeout(PATIENCE_S):
            channel = await layer.new_channel()
            await layer.group_add(GROUP, channel)
        hearing = asyncio.create_task(self._pass_on(layer, channel), name="telemetry-hub-hears")
        try:
            await self._lead(layer, lock, hearing)
        finally:
            hearing.cancel()
            await asyncio.wait({hearing}, timeout=PATIENCE_S)
            await _gently(layer.group_discard, GROUP, channel)

    async def _pass_on(self, layer: Any, channel: str) -> None:
        while True:
            message = await layer.receive(channel)
            self.last = _decode(message["frame"])
            for watcher in tuple(self._watchers):
                watcher.give(self.last)

    async def _lead(self, layer: Any, lock: Lock, hearing: asyncio.Task[None]) -> None:
        """Tick on whole periods while somebody watches; frames are sent by whoever holds the lock."""
        loop = asyncio.get_running_loop()
        frames: Frames | None = None
        due = loop.time()
        while self._watchers:
            if hearing.done():
                await hearing  # raises what ended it
            frames = (frames or Frames(self._summary)) if await _holds(lock) else None
            if frames is not None:
                await self._send(layer, frames)
            else:
                await _in_thread(wants.tell)(self._name, self._wants())
            due = max(due + FRAME_EVERY_S, loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._nobody.wait()

    async def _send(self, layer: Any, frames: Frames) -> None:
        try:
            frame = await _in_thread(self._make)(frames, self._wants())
        except DatabaseError:
            log.exception("no frame: the database failed")
            return
        async with asyncio.timeout(PATIENCE_S):
            await layer.group_send(GROUP, {"type": "live.frame", "frame": frame})
        self._troubled = False

    def _make(self, frames: Frames, own: Wants) -> bytes:
        return msgspec.msgpack.encode(frames.next(own | wants.of_others(self._name)))

    def _wants(self) -> Wants:
        return reduce(or_, (watcher.wants for watcher in self._watchers), NOTHING)

    def _drop_all(self) -> None:
        watchers, self._watchers = self._watchers, set()
        self.last = None
        self._nobody.set()
        for watcher in watchers:
            watcher.drop(TRY_AGAIN_LATER)


def _in_thread(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    return database_sync_to_async(call, thread_sensitive=False, executor=_thread)


async def _holds(lock: Lock) -> bool:
    """Take the lead if it is free, keep it if it is ours."""
    if await lock.owned():
        with contextlib.suppress(LockError):  # it ran out between the two commands
            await lock.reacquire()
            return True
    return await lock.acquire()


async def _gently(leave: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Leave something behind that may be gone already."""
    with contextlib.suppress(*_TROUBLE):
        async with asyncio.timeout(PATIENCE_S):
            await leave(*args)
