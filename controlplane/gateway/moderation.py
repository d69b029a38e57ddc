"""Lets tokens of many streams come together: fewer, fuller wakings of the event loop.

An event of a stream costs the loop a few microseconds, and being woken for it several times that. Network cards meet
the same with interrupt moderation. Here, after passing on tokens while several requests are in flight, the loop rests
until `rest_s` after its last waking, and then takes what all sockets have: so much later, at most, is a token. It does
not rest where its work alone took that long, nor for requests without streams.
"""

from __future__ import annotations

import asyncio
import time

FEW = 4  # requests in flight, below which nothing is gained


class Moderation:
    """One of a process, whose event loop it lets rest. `in_flight` is for its owner to keep."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rest_s: float) -> None:
        self.in_flight = 0
        self._loop, self._rest_s = loop, rest_s
        self._is_due = False
        self._woke = 0.0

    def passed_on(self) -> None:
        """Tokens of a stream were written; they leave before the rest. Once a turn of the loop suffices."""
        if self.in_flight >= FEW and not self._is_due and self._rest_s:
            self._is_due = True
            self._loop.call_soon(self._rest)

    def _rest(self) -> None:
        self._is_due = False
        left = self._woke + self._rest_s - time.monotonic()
        if left > 0:
            time.sleep(left)  # the thread itself: nothing else of the loop is to run, either
        self._woke = time.monotonic()
