"""Requests for pooled models that nothing serves just now: held in order until an engine is there.

Everything here runs on the event loop; who is asked to wake the models answers from a thread. The number of requests
and of bytes that are held is bounded, and the longest line gives way to whoever has less."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from controlplane.domain import start_failures
from controlplane.fleet.services.waking import Standing, State
from controlplane.gateway.limits import Limits
from controlplane.gateway.openai import ApiError, Ask
from controlplane.gateway.table import Served, Table
from controlplane.gateway.trip import Trip

log = structlog.get_logger(__name__)
LOOK_S = 0.02  # between two looks at the table while somebody is held
ASK_S = 0.5  # between two questions how far the models are
RETRY_S = 10  # where nothing was ever measured
LONGEST_RETRY_S = 600
Murmur = Callable[[], Awaitable[None]]
Wake = Callable[[Mapping[str, int]], Awaitable[Mapping[str, Standing]]]  # held requests by deployment


@dataclass(eq=False, slots=True)
class _Held:
    name: str
    key: int | None
    size: int  # bytes
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Line:
    """Of one deployment."""

    held: list[_Held] = field(default_factory=list)
    standing: Standing | None = None


class Hold:
    def __init__(self, table: Callable[[], Table], limits: Limits, wake: Wake) -> None:
        self._table, self._limits, self._wake = table, limits, wake
        self._lines: dict[str, _Line] = {}
        self._bytes = self._count = 0
        self._loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()  # somebody has come for whom nothing was asked yet
        self._closed = False
        self.wants_slot = False  # the last answer was that one of the models waits for a slot; for any thread
        self.slot_wanted: Callable[[], None] = lambda: None  # called when that has become true

    def ask_soon(self) -> None:
        """Somebody may be able to leave its slot now. For any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._news.set)

    @property
    def is_holding(self) -> bool:
        """For any thread."""
        return bool(self._lines)

    def lengths(self) -> dict[str, int]:
        return {name: len(line.held) for name, line in self._lines.items()}

    async def until_served(self, trip: Trip, served: Served, ask: Ask, murmur: Murmur | None = None) -> None:
        """Return when the deployment has an engine. Raises ApiError where that does not come in time, or at all.
        `murmur`: called now and then, where the client is to hear that somebody is there."""
        if self._closed:
            raise _shutting_down(None)
        left_s = self._limits.hold_s - trip.held_s
        held = _Held(served.name, trip.key, _size(ask), self._loop.create_future())
        self._admit(held)
        began = self._loop.time()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await self._done(held, murmur)
        except TimeoutError:
            raise self._too_late(served.name) from None
        finally:
            trip.held_s += self._loop.time() - began
            self._leave(held)

    async def _done(self, held: _Held, murmur: Murmur | None) -> None:
        while murmur is not None and self._limits.hold_comments_s > 0 and not held.done.done():
            await asyncio.wait((held.done,), timeout=self._limits.hold_comments_s)
            if not held.done.done():
                await murmur()
        await held.done

    def close(self) -> None:
        """Everybody who is held is told, in order, to come again: to another gateway, or to the next one. Their models
        are woken all the same."""
        self._closed = True
        for task in (self._asking, self._looking):
            if task is not None:
                task.cancel()
        for name, line in list(self._lines.items()):
            self._end(name, _shutting_down(line.standing))

    # Who is let in

    def _admit(self, held: _Held) -> None:
        line = self._lines.get(held.name)
        if line is not None and len(line.held) >= self._limits.hold_each:
            self._make_room(held, line.held, f"{len(line.held)} requests wait for {held.name!r} already.")
        full = self._count >= self._limits.hold_all or self._bytes + held.size > self._limits.hold_bytes
        if full:
            everyone = (other for line in self._lines.values() for other in line.held)
            self._make_room(held, everyone, f"{self._count} requests wait for models already.")
        self._lines.setdefault(held.name, _Line()).held.append(held)
        self._count += 1
        self._bytes += held.size
        if line is None:
            self._news.set()
        self._begin()

    def _make_room(self, new: _Held, among: Iterable[_Held], why: str) -> None:
        """The key with the most waiting gives its latest up, if the new one's has fewer; else the model with the most
        does, if the new one's has fewer; else the new one goes."""
        waiting = [held for held in among if not held.done.done()]
        last = _gives_way(new, waiting)
        if last is None or last.size < new.size:
            raise self._overloaded(new, why)
        last.done.set_exception(self._overloaded(last, why))
        self._leave(last)

    def _overloaded(self, held: _Held, why: str) -> ApiError:
        line = self._lines.get(held.name)
        return ApiError(503, why, code="overloaded", retry_after=_retry_s(line.standing if line else None))

    def _leave(self, held: _Held) -> None:
        line = self._lines.get(held.name)
        if line is None or held not in line.held:
            return
        line.held.remove(held)
        self._count -= 1
        self._bytes -= held.size
        if not line.held:
            del self._lines[held.name]

    # What becomes of them

    def _begin(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._ask())
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        """Let go of everybody whose deployment has an engine."""
        while self._lines:
            await asyncio.sleep(LOOK_S)
            served = self._table().served
            for name in [name for name in self._lines if name not in served or served[name].has_engine]:
                self._end(name, None)

    async def _ask(self) -> None:
        """Have the models woken, again and again: whoever forgets one of them is reminded of it."""
        failing = False
        while self._lines:
            self._news.clear()
            try:
                standings = await self._wake(self.lengths())
                failing = False
            except Exception as error:
                if not failing:
                    log.error("models cannot be woken; tried again", error=str(error))
                failing, standings = True, {}
            for name, standing in standings.items():
                self._told(name, standing)
            before = self.wants_slot
            self.wants_slot = any(standing.state is State.WAITING for standing in standings.values())
            if self.wants_slot and not before:
                self.slot_wanted()
            try:
                async with asyncio.timeout(ASK_S):
                    await self._news.wait()
            except TimeoutError:
                continue
        self.wants_slot = False

    def _told(self, name: str, standing: Standing) -> None:
        line = self._lines.get(name)
        if line is None:
            return
        line.standing = standing
        if standing.state is State.FAILED:
            retry_s = _retry_s(standing)
            why = start_failures.kind(standing.message)
            message = f"The model {name!r} could not be started: {why}. It is tried again in {retry_s} s."
            self._end(name, ApiError(503, message, code="activation_failed", retry_after=retry_s))
        elif standing.state is State.ABSENT:
            self._end(name, ApiError(503, f"No engine is ready for {name!r}.", code="model_not_ready", retry_after=5))

    def _end(self, name: str, error: ApiError | None) -> None:
        """In the order they came, but key by key in turn."""
        line = self._lines.pop(name)
        for held in _in_turn(line.held):
            self._count -= 1
            self._bytes -= held.size
            if held.done.done():
                continue
            if error is None:
                held.done.set_result(None)
            else:
                held.done.set_exception(error)

    def _too_late(self, name: str) -> ApiError:
        line = self._lines.get(name)
        standing = line.standing if line else None
        why = " No slot is free for it." if standing and standing.state is State.WAITING else ""
        message = f"The model {name!r} was not ready within {self._limits.hold_s:.0f} s.{why}"
        return ApiError(503, message, code="model_not_ready", retry_after=_retry_s(standing))


def _shutting_down(standing: Standing | None) -> ApiError:
    retry_s = 1 if standing is None or standing.expected_s is None else _retry_s(standing)
    return ApiError(503, "The gateway is shutting down.", code="shutting_down", retry_after=retry_s)


def _gives_way(new: _Held, waiting: list[_Held]) -> _Held | None:
    """None: nobody has more than one that the new one's key, or its model, would have with it."""
    keys, models = Counter(held.key for held in waiting), Counter(held.name for held in waiting)
    key = max(keys, key=lambda one: keys[one], default=None)
    if keys[new.key] + 1 < keys[key]:
        return next(held for held in reversed(waiting) if held.key == key)
    own = [held for held in waiting if keys[held.key] >= keys[new.key]]  # a key with less is not made to pay
    longest = max(own, key=lambda held: models[held.name], default=None)
    if longest is None or models[new.name] + 1 >= models[longest.name]:
        return None
    return next(held for held in reversed(own) if held.name == longest.name)


def _in_turn(line: list[_Held]) -> Iterator[_Held]:
    by_key: dict[int | None, list[_Held]] = {}
    for held in line:
        by_key.setdefault(held.key, []).append(held)
    for place in range(max(map(len, by_key.values()), default=0)):
        yield from (own[place] for own in by_key.values() if place < len(own))


def _retry_s(standing: Standing | None) -> int:
    expected = standing.expected_s if standing else None
    return RETRY_S if expected is None else min(LONGEST_RETRY_S, max(1, round(expected)))


def _size(ask: Ask) -> int:
    return sum(memoryview(value).nbytes for value in ask.fields.values())
