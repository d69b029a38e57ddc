"""Requests that wait for room at a deployment's engines, where those take only so many. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.2  # how often the first looks by itself, for engines come with a new table too


@dataclass(eq=False, slots=True)
class _Waiting:
    since: float
    may_look: asyncio.Event = field(default_factory=asyncio.Event)


class Lines:
    def __init__(self) -> None:
        self._lines: dict[str, deque[_Waiting]] = {}
        self._loop = asyncio.get_running_loop()

    def length(self, deployment: str) -> int:
        return len(self._lines[deployment]) if deployment in self._lines else 0

    def lengths(self) -> dict[str, int]:
        return {deployment: len(line) for deployment, line in self._lines.items()}

    def waited_s(self, deployment: str) -> float:
        """How long the first has been waiting; 0 where nobody is."""
        return self._loop.time() - self._lines[deployment][0].since if deployment in self._lines else 0.0

    def freed(self) -> None:
        """An engine has one request less: those who are first may look."""
        for line in self._lines.values():
            line[0].may_look.set()

    async def turn(self, deployment: str, look: Callable[[], T | None], within_s: float) -> T | None:
        """What `look` finds once this request is the first in line; None when it took too long. What was found must be
        taken before the caller awaits anything, for then the next one looks."""
        line = self._lines.setdefault(deployment, deque())
        line.append(me := _Waiting(self._loop.time()))
        until = me.since + within_s
        try:
            while (left_s := until - self._loop.time()) > 0:
                first = line[0] is me
                if first and (found := look()) is not None:
                    return found
                me.may_look.clear()
                await _set(me.may_look, min(left_s, LOOK_S) if first else left_s)
            return None
        finally:
            line.remove(me)
            if line:
                self._loop.call_soon(line[0].may_look.set)
            else:
                del self._lines[deployment]


async def _set(event: asyncio.Event, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return
