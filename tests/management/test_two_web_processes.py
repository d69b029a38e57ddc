"""Two real web processes behind one port share the reports of a simulated fleet, and one of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psycopg
import pytest
from django.db import connections

from tests import postgres
from tests.browser.running import PYTHON, Running, eventually, free_port

pytestmark = pytest.mark.timeout(300)
NODES, GPUS, EVERY_S = 6, 2, 5  # rows are means over so many seconds
WATCHERS = 6
RECOVERED_S = 12.0  # a leader that is killed is replaced after 5 s


class Balancer:
    """One port: connections go to the web processes in turn, and past one that refuses."""

    def __init__(self, ports: list[int]) -> None:
        self.port, self.taken = 0, Counter[int]()
        self._ports, self._turn = ports, count()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop, self._up, self._over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # which ends what is still open
            runner.run(self._balance())

    async def _balance(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0.2)  # for those who read from them to see that

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turn)
        for place in range(len(self._ports)):
            port = self._ports[(first + place) % len(self._ports)]
            with contextlib.suppress(OSError):
                answers, asks = await asyncio.open_connection("127.0.0.1", port)
                self.taken[port] += 1
                self._open |= {asks, writer}
                await asyncio.gather(_pipe(reader, asks), _pipe(answers, writer))
                self._open -= {asks, writer}
                return
        writer.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    sink.close()


class Watcher:
    """As a page: it loads anew and goes on whenever its socket ends or a number is missing."""

    def __init__(self) -> None:
        self.heard_at: dict[int, float] = {}  # of each node, by the monotonic clock
        self.sockets = self.loads = 0

    async def run(self, port: int, headers: dict[str, str]) -> None:
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await self._watch(session, port)
                await asyncio.sleep(0.5)

    async def _watch(self, session: aiohttp.ClientSession, port: int) -> None:
        async with session.ws_connect(f"http://127.0.0.1:{port}/ws/live") as socket:
            self.sockets += 1
            at = None
            async for message in socket:
                frame = json.loads(message.data)
                if at is None or (frame["epoch"], frame["seq"]) != (at[0], at[1] + 1):
                    await self._load(session, port)
                at = frame["epoch"], frame["seq"]
                for node in frame["heard"][::2]:
                    self.heard_at[node] = time.monotonic()

    async def _load(self, session: aiohttp.ClientSession, port: int) -> None:
        async with session.get(f"http://127.0.0.1:{port}/api/v1/live") as reply:
            found = await reply.json()
            self.loads += 1
            assert len(found["nodes"]) == NODES


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    """On SQLite, or on a database of its own beside the one that this run of the tests has."""
    entry = connections.settings["default"]
    running, sqlite = Running(tmp_path), entry["ENGINE"].endswith("sqlite3")
    running.environ |= {"FOREBAY_SAMPLE_EVERY_S": str(EVERY_S), "FOREBAY_SILENT_AFTER_S": "6"}
    with contextlib.nullcontext("") if sqlite else postgres.new_database(entry) as url:
        running.environ |= {"FOREBAY_DATABASE_URL": url} if url else {}
        try:
            running.start(gateway=False)
            yield running
        finally:
            running.stop()


def start_another(site: Running) -> int:
    port = free_port()
    site.spawn(
        "web-2", PYTHON, "-m", "uvicorn", "controlplane.asgi:application", "--host", "127.0.0.1", "--port", str(port),
        "--http", "controlplane.wire:Wire", "--no-access-log", "--log-level", "warning",
    )  # fmt: skip
    site.wait_for(f"http://127.0.0.1:{port}/static/css/tokens.css")
    return port


def rows(site: Running, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the site's database holds; `?` stands for a value."""
    if url := site.environ.get("FOREBAY_DATABASE_URL"):
        with psycopg.connect(url) as server:
            return server.execute(sql.replace("?", "%s"), values).fetchall()
    told = [f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value for value in values]
    with contextlib.closing(sqlite3.connect(f"file:{site.home / 'db.sqlite3'}?mode=ro", uri=True, timeout=20)) as base:
        return base.execute(sql, told).fetchall()


def age_s(at: datetime | str) -> float:
    """Of a moment as the database gives it: SQLite keeps text in UTC."""
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC) if isinstance(at, str) else at
    return (datetime.now(UTC) - moment).total_seconds()


def test_a_web_process_that_is_killed_loses_nothing_that_the_next_report_does_not_say(site: Running) -> None:
    password = site.make_admin()
    made = httpx.post(f"{site.web}/api/v1/tokens", auth=("admin", password), json={}, timeout=30)
    headers = {"Authorization": f"Token {made.raise_for_status().json()['token']}"}
    ports = [site.web_port, start_another(site)]
    with Balancer(ports) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        play = ("simulate_fleet", f"--nodes={NODES}", f"--gpus={GPUS}", "--models=1", "--load=low", "--url", url)
        site.spawn("fleet", PYTHON, "manage.py", *play)
        eventually(lambda: "simulated nodes report" in site.log("fleet"), within_s=60, what="the fleet")
        watchers = [Watcher() for _ in range(WATCHERS)]
        with watching(watchers, balancer.port, headers):
            everybody_hears(watchers, since=time.monotonic())
            assert min(balancer.taken[port] for port in ports) >= 2, "both take connections"
            began = next_window()
            time.sleep(1)  # early in a window: all but its beginning is told again
            site.processes["web"].send_signal(signal.SIGKILL)
            killed = time.monotonic()
            silent = everybody_hears(watchers, since=killed, site=site)
            assert not silent, "no node was ever taken for silent"
            time.sleep(2 * EVERY_S + 5)
            frames_go_on = everybody_hears(watchers, since=time.monotonic(), site=site)
            assert not frames_go_on
        ended = next_window() - EVERY_S
    site.processes["fleet"].send_signal(signal.SIGINT)
    site.processes["fleet"].wait(30)
    told = json.loads(next(line for line in reversed(site.log("fleet").splitlines()) if line.startswith("{")))
    assert told["lost"] <= NODES, "at most the reports that were under way"
    assert sum(one.sockets for one in watchers) > WATCHERS, "some watched the one that was killed, and came again"
    windows = [datetime.fromtimestamp(at, UTC) for at in range(began, ended - 2, EVERY_S)]
    assert len(windows) >= 3
    for at in windows:
        found = rows(site, "SELECT COUNT(DISTINCT gpu_id) FROM telemetry_gpusample WHERE at = ?", at)
        assert found == [(NODES * GPUS,)], f"all GPUs have a row of {at}"


@contextlib.contextmanager
def watching(watchers: list[Watcher], port: int, headers: dict[str, str]) -> Iterator[None]:
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def watch() -> None:
        tasks = [asyncio.create_task(one.run(port, headers)) for one in watchers]
        await over.wait()
        wrong.extend(task for task in tasks if task.done())

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(watch())

    wrong: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
    assert not wrong, "a watcher gave up"


def everybody_hears(watchers: list[Watcher], *, since: float, site: Running | None = None) -> set[str]:
    """Each watcher of each node, after that moment; gives the nodes that were silent meanwhile."""
    silent: set[str] = set()

    def all_of_them() -> bool:
        if site is not None:
            seen = rows(site, "SELECT name, last_seen FROM fleet_node")
            silent.update(name for name, at in seen if age_s(at) > 6 + 3)  # last_seen is written in batches
        return all(len(one.heard_at) == NODES and min(one.heard_at.values()) > since for one in watchers)

    eventually(all_of_them, within_s=RECOVERED_S, what="all watchers hear all nodes")
    return silent


def next_window() -> int:
    """Unix seconds of the beginning of a sampling window that begins now."""
    at = (int(time.time()) // EVERY_S + 1) * EVERY_S
    time.sleep(at - time.time())
    return at
