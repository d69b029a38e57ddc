"""Virtual time: an event loop whose clock stands still while anything is to be done, and then goes on to the next timer
at once; and a wall clock that goes with it.

Sockets are real. Loopback hands over what is sent before `send` returns, so once nothing is readable nothing is under
way. Executors are run at once, on the loop's own thread: what they take is no virtual time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

RESOLUTION_S = 1e-6  # of the clock: unix seconds are floats
real_monotonic = time.monotonic


@dataclass(slots=True)
class Clock:
    """Unix seconds."""

    now: float
    jumps: int = 0

    def install(self) -> None:
        """For everything that reads the time as the product does: by time.time, time.monotonic, or Django's
        timezone.now. Before any of Django's models are imported, which keep the latter as a default."""
        for where, name, read in self.readers():
            setattr(where, name, read)

    def readers(self) -> list[tuple[object, str, Callable[[], object]]]:
        """(module, name in it, what it is to be)."""
        from django.utils import timezone

        return [
            (time, "time", lambda: self.now),
            (time, "monotonic", lambda: self.now),
            (timezone, "now", lambda: datetime.fromtimestamp(self.now, UTC)),
        ]


class _Selector(selectors.EpollSelector):
    """Waits by setting the clock on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or timeout is None or timeout <= 0:
            return found if found or timeout is not None else super().select(1.0)
        self._clock.now += timeout
        self._clock.jumps += 1
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self.clock = clock
        self._clock_resolution = RESOLUTION_S

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def sockets(self) -> int:
        """That are open on this loop, its own pair aside."""
        return len(self._selector.get_map()) - 1  # type: ignore[attr-defined]


async def until(at: float) -> None:
    """Sleep to a moment of the loop's clock."""
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
