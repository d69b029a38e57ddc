"""Sends the reports of all simulated nodes: a kept connection a node, spread evenly over the period, and at once when a
spec came by a node's queue."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from workers.contract import NodeSpec, ReportReply
from workers.simulated_fleet import queues
from workers.simulated_fleet.faults import Fault
from workers.simulated_fleet.host import Curve, Host
from workers.simulated_fleet.serving import Served

TICK_S = 0.02
TIMEOUT_S = 10.0
SERVING_S = 0.5  # so old may be what is known of ready engines
LARGEST_WAIT_S = 300.0
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ReportReply).decode


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """A joined node, its own token, the agent's instance that joined it, and its queue, if it has a `broker_url`."""

    node: int
    name: str
    token: str
    instance: str
    broker_url: str = ""
    queue: str = ""


@dataclass(slots=True)
class Told:
    """Counts of reports. `lost`: sent, and not answered. `late`: not sent at their time, as one was under way.
    `nudged`: specs that came by a queue before an answer brought them."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    late: int = 0
    nudged: int = 0


class Fleet:
    """All hosts, and the faults in force."""

    def __init__(self, seats: Sequence[Seat], *, gpus: int, curve: Curve, period_s: float = 1.0) -> None:
        self.hosts = {
            seat.name: Host(seat.node, seat.name, gpus, curve, instance=seat.instance, period_s=period_s)
            for seat in seats
        }
        self.faults: frozenset[Fault] = frozenset()
        self._by_key: dict[str, Served] = {}
        self._known_until = 0.0

    def find(self, key: str) -> Served | None:
        """The ready engine that has the key."""
        if (found := self._by_key.get(key)) is None or time.monotonic() > self._known_until:
            self._by_key = {key: served for host in self.hosts.values() for key, served in host.serving()}
            self._known_until, found = time.monotonic() + SERVING_S, self._by_key.get(key)
        return found

    def answer_at(self, endpoint: str) -> None:
        """Where requests for all engines go."""
        for host in self.hosts.values():
            host.endpoint = endpoint

    def put(self, faults: frozenset[Fault]) -> None:
        """These are in force now, and no others. A restart happens once, when it is new."""
        new, self.faults = faults - self.faults, faults
        for name, host in self.hosts.items():
            host.faults = frozenset(fault for fault in faults if fault.node == name)
        for fault in new:
            if fault.kind == "restart":
                self.hosts[fault.node].restart()


async def play(
    fleet: Fleet,
    seats: Sequence[Seat],
    *,
    host: str,
    port: int,
    is_over: Callable[[], bool],
    told: Told | None = None,
) -> Told:
    """Until `is_over`. `told` may be given to look at the counts while it goes on."""
    told = told or Told()
    eager: deque[_Line] = deque()
    lines = [_Line(seat, fleet.hosts[seat.name], told, (host, port), eager) for seat in seats]
    listening = [
        asyncio.create_task(queues.listen(seat.broker_url, seat.queue, line.nudge))
        for seat, line in zip(seats, lines, strict=True)
        if seat.broker_url
    ]
    await _report(lines, eager, is_over)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    until = time.monotonic() + TIMEOUT_S
    while any(line.is_busy for line in lines) and time.monotonic() < until:
        await asyncio.sleep(TICK_S)
    for line in lines:
        line.close()
    return told


async def _report(lines: Sequence[_Line], eager: deque[_Line], is_over: Callable[[], bool]) -> None:
    """For all nodes at their times, and between those for one that was told something new."""
    start = time.monotonic()
    due = [(start + place / len(lines) * line.host.period_s, place) for place, line in enumerate(lines)]
    while not is_over():
        now = time.monotonic()
        while due and due[0][0] <= now:
            at, place = heapq.heappop(due)
            line = lines[place]
            line.send()
            period_s = line.host.period_s
            heapq.heappush(due, (max(at + period_s, now - period_s, line.not_before), place))
        for line in [eager.popleft() for _ in range(len(eager))]:
            if line.is_busy or line.not_before > now:
                eager.append(line)
            else:
                line.send()
        await asyncio.sleep(TICK_S)


class _Line(asyncio.Protocol):
    """One node's connection, with at most one report under way; the next one says it all again."""

    def __init__(self, seat: Seat, host: Host, told: Told, to: tuple[str, int], eager: deque[_Line]) -> None:
        self.host, self.not_before, self.is_busy = host, 0.0, False
        self._eager = eager  # those with news to be told before their period is over
        self._told, (self._address, self._port) = told, to
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[object] | None = None
        self._sent_at, self._buffer = 0.0, b""
        self._head = (
            f"POST /agent/v1/report HTTP/1.1\r\nhost: {to[0]}:{to[1]}\r\nauthorization: Bearer {seat.token}\r\n"
            "content-type: application/json\r\ncontent-length: %d\r\n\r\n"
        ).encode()

    def nudge(self, spec: NodeSpec) -> None:
        """What came by the node's queue. A silent node is one that nothing reaches."""
        if not self.host.is_silent and self.host.hold(spec):
            self._told.nudged += 1
            self._eager.append(self)

    def send(self) -> None:
        now = time.monotonic()
        if self.is_busy and now - self._sent_at > TIMEOUT_S:
            self.close()
        report = self.host.report(time.time())  # time goes on in a silent node too
        if self.host.is_silent:
            return
        if self.is_busy:
            self._told.late += 1
            return
        if self._transport is None:
            self._open()
            return
        body = _encode(report)
        self.is_busy, self._sent_at, self._buffer = True, now, b""
        self._told.sent += 1
        self._transport.write(self._head % len(body) + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.is_busy:
            self.is_busy = False
            self._told.lost += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        if fields.get(b"transfer-encoding") == b"chunked":
            if not body.endswith(b"0\r\n\r\n"):
                return
            body = _joined(body)
        elif len(body) < int(fields.get(b"content-length", b"0")):
            return
        self.is_busy, status = False, lines[0][9:12]
        self._told.answered += 1
        if status == b"200":
            self.host.take(_decode(body))
            return
        self._told.refused += 1
        wait = fields.get(b"retry-after", b"")
        self.not_before = time.monotonic() + (min(float(wait), LARGEST_WAIT_S) if wait.isdigit() else 1.0)

    def _open(self) -> None:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_connection(lambda: self, self._address, self._port)
        except OSError:
            self.not_before = time.monotonic() + 1.0


def _joined(chunks: bytes) -> bytes:
    """A whole body that came in chunks: an answer with a spec has no length told beforehand."""
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body, chunks = body + rest[:length], rest[length + 2 :] if length else b""
    return body
