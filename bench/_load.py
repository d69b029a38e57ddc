"""The load: keep-alive clients on raw asyncio, light enough not to be what is measured."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httptools


@dataclass(frozen=True, slots=True)
class Shot:
    seconds: float
    first_s: float
    status: int
    bytes: int


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.parser = httptools.HttpResponseParser(self)
        self.waiter: asyncio.Future[Shot] | None = None

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error or ConnectionResetError("closed"))

    def on_body(self, data: bytes) -> None:
        if not self.size:
            self.first = time.perf_counter()
        self.size += len(data)

    def on_message_complete(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            now, status = time.perf_counter(), self.parser.get_status_code()
            self.waiter.set_result(Shot(now - self.began, self.first - self.began, status, self.size))

    def shoot(self, request: bytes) -> asyncio.Future[Shot]:
        self.waiter = asyncio.get_running_loop().create_future()
        self.size = 0
        self.first = self.began = time.perf_counter()
        self.transport.write(request)
        return self.waiter


async def fire(port: int, request: bytes, *, concurrency: int, count: int) -> list[Shot]:
    """`count` requests from `concurrency` clients that each wait for their answer before the next."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(concurrency)]
    left = count
    shots: list[Shot] = []

    async def run(client: Client) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            shots.append(await client.shoot(request))

    try:
        await asyncio.gather(*(run(client) for client in clients))
    finally:
        for client in clients:
            client.transport.close()
    return shots


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, and its children, ended or not."""
    total = 0.0
    for child in [pid, *_descendants(pid)]:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12]) + (int(fields[13]) + int(fields[14]) if child == pid else 0)
    return total / 100.0


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
