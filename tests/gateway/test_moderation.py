"""The event loop rests between the tokens of many streams, and only between those."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from controlplane.gateway import moderation
from controlplane.gateway.moderation import FEW, Moderation

REST_S = 0.002


class Clock:
    """Time that passes only where somebody sleeps or says so."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(moderation, "time", made)
    return made


async def turns(one: Moderation, clock: Clock, work_s: list[float]) -> None:
    """Tokens of three streams in each turn of the loop, whose work takes so long."""
    for seconds in work_s:
        for _ in range(3):
            one.passed_on()
        clock.now += seconds
        await asyncio.sleep(0)


async def test_it_rests_once_a_turn_until_its_last_waking_is_so_long_ago(clock: Clock) -> None:
    one = Moderation(asyncio.get_running_loop(), REST_S)
    one.in_flight = FEW
    await turns(one, clock, [0.0005, 0.0005, 0.0015])
    assert clock.slept == [0.0015, 0.0005], "the first finds the last waking long ago"


async def test_it_does_not_rest_while_its_work_takes_that_long(clock: Clock) -> None:
    one = Moderation(asyncio.get_running_loop(), REST_S)
    one.in_flight = FEW
    await turns(one, clock, [0.003, 0.003, 0.002])
    assert clock.slept == []


@pytest.mark.parametrize(("in_flight", "rest_s"), [(FEW - 1, REST_S), (FEW, 0.0)])
async def test_few_requests_and_those_who_want_none_do_not_wait(clock: Clock, in_flight: int, rest_s: float) -> None:
    one = Moderation(asyncio.get_running_loop(), rest_s)
    one.in_flight = in_flight
    await turns(one, clock, [0.0001] * 5)
    assert clock.slept == []


class Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)


async def test_what_comes_while_it_rests_is_taken_at_one_waking() -> None:
    """On a real loop and a real socket."""
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
    transport, reader = await loop.create_connection(Reader, sock=ours)
    one = Moderation(loop, 0.2)
    one.in_flight = FEW
    one.passed_on()
    await asyncio.sleep(0)  # its first rest is none: it last woke long ago
    thread = threading.Thread(target=_write, args=(theirs,))
    thread.start()
    one.passed_on()
    await asyncio.sleep(0)
    thread.join()
    await asyncio.sleep(0.05)
    assert reader.heard == [b"abc"]
    transport.close()
    theirs.close()


def _write(to: socket.socket) -> None:
    for piece in (b"a", b"b", b"c"):
        time.sleep(0.01)
        to.send(piece)
