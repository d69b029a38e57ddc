"""Agents and browsers in one process each, cheap enough for two cores: their reports are templates with the numbers
filled in, and of the frames they look at what they count alone."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import msgspec
import uvloop
import websockets

from bench._site import Node
from workers.contract import (
    Device,
    DeviceKind,
    DeviceSample,
    EngineSample,
    HostSample,
    NodeReport,
    Phase,
    ReplicaStatus,
    Role,
)

TICK_S = 0.02
_PERIOD = re.compile(rb'"period_s":([0-9.]+)')
_RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
SETTLED = 4  # answers
MARKS = 900_000_000  # numbers from here on are places to fill in


@dataclass(slots=True)
class Told:
    """Moments are unix seconds. `slow`: the one before was not answered yet; `held`: the server asked for fewer."""

    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)


def report(port: int, nodes: list[Node], taken: Event, settled: Event, end: Event, out: Queue[Told]) -> None:
    """Until `end`. `taken` once each node was answered; `settled` once all may report each second."""
    out.put(uvloop.run(_play(port, nodes, taken, settled, end)))


class _Agent(asyncio.Protocol):
    """One node: a kept connection, a report at a time."""

    def __init__(self, port: int, node: Node, told: Told) -> None:
        self.node, self._port, self._told = node, port, told
        self._template = _template(node)
        self._head = (
            f"POST /agent/v1/report HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {node.token}\r\n"
            "content-type: application/json\r\ncontent-length: %d\r\n\r\n"
        ).encode()
        self._seq = time.time_ns() // 1_000_000
        self._sent_at = self._not_before = 0.0
        self._period_s = 0.0  # asked for, where it is not the configured one
        self.is_busy = False
        self.answers = 0

    def _again(self) -> None:
        self.is_busy = True
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(loop.create_connection(lambda: self, "127.0.0.1", self._port))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self.is_busy = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_busy, self._transport = False, None

    def is_free(self, at: float) -> bool:
        return self._period_s <= 1 and self._not_before <= at

    def send(self) -> None:
        if self.is_busy:  # as an agent does: one report at a time, and the next one says it all
            self._told.slow.append(time.time())
            return
        now = time.time()
        if now < self._not_before:  # told to come later, as agents obey
            self._told.held.append(now)
            return
        if self._transport is None:  # the server closes what says nothing for some seconds
            self._again()
            return
        self._seq += 1
        body = self._template(self._seq, now)
        self._told.sent.append(now)
        self.is_busy, self._sent_at = True, now
        self._transport.write(self._head % len(body) + body)

    def data_received(self, data: bytes) -> None:
        """A whole answer comes in one piece, but one with a spec may take several."""
        if not data.startswith(b"HTTP/1.1 "):
            return
        self.is_busy = False
        if data.startswith(b"HTTP/1.1 200"):
            self.answers += 1
            self._told.answered.append(self._sent_at)
            asked = _PERIOD.search(data)
            self._period_s = float(asked[1]) if asked else 0.0
            self._not_before = self._sent_at + self._period_s - 0.5 if self._period_s > 1 else 0.0
        else:
            self._told.refused.append(self._sent_at)
            after = _RETRY_AFTER.search(data)
            self._not_before = time.time() + (float(after[1]) if after else 1.0)


def _template(node: Node) -> Any:
    """The report of this node at a sequence number and a moment, as JSON."""
    text = msgspec.json.encode(_report(node)).decode()
    text = text.replace("%", "%%").replace('"utilization":0.5', '"utilization":%.3f')
    text = re.sub(r"\b9000\d{5}(\.0)?\b", lambda found: "%.1f" if found[1] else "%d", text)
    form = text.encode()
    places = re.findall(rb"%\.3f|%\.1f|%d", form)
    names = re.findall(rb'"(\w+)":(?:%\.3f|%\.1f|%d)', form)
    assert len(places) == len(names)
    phase = node.id % 100 / 100 * math.tau

    def fill(seq: int, at: float) -> bytes:
        load = 0.5 + 0.45 * math.sin(at / 60 + phase)
        values = {
            b"utilization": load, b"memory_used_bytes": 60 * 2**30 + seq % 1000, b"power_w": 100 + 500 * load,
            b"temperature_c": 35 + 40 * load, b"memory_bytes": 50 * 2**30, b"running": 16 * load, b"seq": seq,
            b"at": at,
        }  # fmt: skip
        total = at - 1.79e9
        return form % tuple(values.get(name, total) for name in names)

    return fill


def _report(node: Node) -> NodeReport:
    """With a number that occurs nowhere else where `_template` fills in another."""
    counter = iter(range(MARKS, MARKS + 10_000))
    mark = lambda: next(counter)  # noqa: E731
    samples = tuple(
        DeviceSample(
            uuid=uuid, utilization=0.5, memory_used_bytes=mark(), power_w=float(mark()), power_limit_w=700.0,
            temperature_c=float(mark()), sm_clock_mhz=1980.0, memory_clock_mhz=2619.0, ecc_uncorrected=0,
        )
        for uuid in node.gpus
    )  # fmt: skip
    replicas = tuple(
        ReplicaStatus(
            partition=id, deployment="model", role=role, generation=1, phase=Phase.READY, pid=100 + id,
            endpoint=f"http://127.0.0.1:{20000 + id % 40000}", ready_after_s=20.0, memory_bytes=mark(),
            engine_version="simulated",
            sample=EngineSample(
                running=float(mark()), waiting=0.0, kv_usage=0.25, prompt_tokens_total=float(mark()),
                generation_tokens_total=float(mark()), requests_total=float(mark()), ttft_sum_s=float(mark()),
                ttft_count=float(mark()), itl_sum_s=float(mark()), itl_count=float(mark()),
            ),
        )
        for (id, _), role in zip(node.partitions, (Role.PREFILL, Role.DECODE), strict=True)
    )  # fmt: skip
    return NodeReport(
        node=node.id, instance=f"sim-{node.id}", boot=f"boot-{node.id}", seq=mark(), at=float(mark()), generation=1,
        agent_version="bench", engine_version="simulated", driver="simulated", simulated=True,
        devices=tuple(
            Device(
                uuid=uuid, index=index, kind=DeviceKind.SIMULATED, name="Simulated accelerator",
                memory_bytes=80 * 2**30,
                peers=tuple(other for other in node.gpus if other != uuid),
            )
            for index, uuid in enumerate(node.gpus)
        ),
        samples=samples, replicas=replicas,
        host=HostSample(cpu_utilization=0.2, cpu_count=64, memory_bytes=2**40, memory_used_bytes=mark()),
    )  # fmt: skip


async def _play(port: int, nodes: list[Node], taken: Event, settled: Event, end: Event) -> Told:
    loop, told = asyncio.get_running_loop(), Told()
    agents: list[_Agent] = []
    for node in nodes:
        _, agent = await loop.create_connection(lambda node=node: _Agent(port, node, told), "127.0.0.1", port)
        agents.append(agent)
    began, sent = loop.time(), 0
    while not end.is_set():
        due = int((loop.time() - began) * len(agents))
        if not taken.is_set() and all(agent.answers for agent in agents):
            taken.set()
        if not settled.is_set() and all(agent.answers >= SETTLED and agent.is_free(time.time()) for agent in agents):
            settled.set()
        for place in range(sent, due):
            agents[place % len(agents)].send()
        sent = due
        await asyncio.sleep(TICK_S)
    until = loop.time() + 10
    while any(agent.is_busy for agent in agents) and loop.time() < until:
        await asyncio.sleep(0.1)
    return told


def watch(port: int, token: str, nodes: list[int], watchers: int, each: int, end: Event, out: Queue[list[Any]]) -> None:
    out.put(uvloop.run(_watch_all(port, token, nodes, watchers, each, end)))


async def _watch_all(
    port: int, token: str, nodes: list[int], watchers: int, each: int, end: Event
) -> list[tuple[float, float]]:
    ages: list[tuple[float, float]] = []
    shown = [
        [nodes[(place * each + k) % len(nodes)] for k in range(min(each, len(nodes)))] for place in range(watchers)
    ]
    await asyncio.gather(*(_watch(port, token, one, end, ages) for one in shown))
    return ages


async def _watch(port: int, token: str, nodes: list[int], end: Event, ages: list[tuple[float, float]]) -> None:
    """What a fleet map does: it says which rows are in sight. Ages: of what a frame holds of those, at its receipt."""
    headers = {"Authorization": f"Token {token}"}
    mine = set(nodes)
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/ws/live?view", additional_headers=headers, max_size=None, compression=None
    ) as socket:
        await socket.send(json.dumps({"type": "view", "fill": "utilization", "nodes": nodes}))
        while not end.is_set():
            try:
                text = await asyncio.wait_for(socket.recv(), 5)
            except TimeoutError:
                continue
            now, frame = time.time(), msgspec.json.decode(text)
            heard = frame.get("heard") or []
            late = now - frame["at"]
            ages += [(now, late + age / 10) for pk, age in zip(heard[::2], heard[1::2], strict=True) if pk in mine]
