"""Nodes that exist only as reports, for pictures of a large fleet: they join and report through the real uplink, and
call themselves simulated everywhere. Their figures are made up; nothing here is shown as a measurement."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from workers.contract import (
    Device,
    DeviceKind,
    DeviceSample,
    EngineSample,
    Histogram,
    HostSample,
    LogChunk,
    LogWanted,
    NodeReport,
    NodeSpec,
    Phase,
    ReplicaSpec,
    ReplicaStatus,
    ReportReply,
)

GIB = 2**30
TTFT_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0)  # s
ITL_BOUNDS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.1)


@dataclass
class FeignedNode:
    web: str
    name: str
    gpus: int = 8
    kind: str = "Simulated H100 80GB"
    starts_s: float = 4.0
    broken: set[int] = field(default_factory=set)  # device indexes that are lost
    phases: dict[int, Phase] = field(default_factory=dict)  # partition -> a phase it stays in
    spec: NodeSpec | None = None
    seq: int = 0
    clock: Callable[[], float] = time.time  # a past one for samples of the past

    def __post_init__(self) -> None:
        self.began: dict[tuple[int, str], float] = {}
        self.totals: dict[int, float] = {}
        self.counted: dict[tuple[int, str], list[float]] = {}
        self.told_at: dict[int, float] = {}
        self.noise = random.Random(self.name)
        self.wanted: tuple[LogWanted, ...] = ()
        self.started = time.time()

    def join(self, token: str) -> None:
        body = {
            "token": token,
            "name": self.name,
            "address": "127.0.0.1",
            "instance": f"feigned-{self.name}",
            "agent_version": "feigned",
            "at": time.time(),
        }
        reply = httpx.post(f"{self.web}/agent/v1/join", json=body, timeout=30)
        assert reply.status_code == 200, reply.text
        self.id, self.token = reply.json()["node"], reply.json()["node_token"]

    def report(self, client: httpx.Client) -> None:
        self.seq += 1
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = msgspec.json.encode(self.told())
        reply = client.post(f"{self.web}/agent/v1/report", content=body, headers=headers, timeout=30)
        assert reply.status_code == 200, reply.text
        answer = msgspec.json.decode(reply.content, type=ReportReply)
        self.wanted = answer.logs
        if answer.spec is not None:
            self.spec = answer.spec

    def told(self) -> NodeReport:
        replicas = self.spec.replicas if self.spec else ()
        devices = tuple(
            Device(uuid=self._uuid(i), index=i, kind=DeviceKind.SIMULATED, name=self.kind, memory_bytes=80 * GIB)
            for i in range(self.gpus)
        )
        busy = {uuid: replica for replica in replicas for uuid in replica.gpus}
        return NodeReport(
            node=self.id,
            instance=f"feigned-{self.name}",
            boot="b1",
            seq=self.seq,
            at=self.clock(),
            generation=self.spec.generation if self.spec else 0,
            agent_version="feigned",
            engine_version="simulated",
            driver="simulated",
            simulated=True,
            devices=devices,
            samples=tuple(self._sample(device, busy.get(device.uuid)) for device in devices),
            host=HostSample(
                cpu_utilization=0.2,
                cpu_count=96,
                memory_bytes=1024 * GIB,
                memory_used_bytes=212 * GIB,
                disk_free_bytes=3000 * GIB,
            ),
            replicas=tuple(self._replica(replica) for replica in replicas),
            logs=tuple(self._chunk(wanted) for wanted in self.wanted),
        )

    def _uuid(self, index: int) -> str:
        return f"GPU-feigned-{self.name}-{index}"

    def _load(self, key: str, base: float) -> float:
        phase = sum(map(ord, key)) % 60
        day = math.sin(self.clock() / 86400 * 2 * math.pi) * 0.18
        wave = math.sin((self.clock() + phase) / 170) * 0.08 + self.noise.uniform(-0.04, 0.04)
        return min(0.99, max(0.02, base + day + wave + (phase - 30) / 150))

    def _sample(self, device: Device, replica: ReplicaSpec | None) -> DeviceSample:
        if device.index in self.broken:
            return DeviceSample(uuid=device.uuid, health="lost", health_detail="fallen off the bus")
        if replica is None or self._phase(replica) is not Phase.READY:
            return DeviceSample(uuid=device.uuid, utilization=0.0, memory_used_bytes=GIB, power_w=74, temperature_c=31)
        load = self._load(device.uuid, {"prefill": 0.78, "decode": 0.55}.get(replica.role, 0.3))
        return DeviceSample(
            uuid=device.uuid,
            utilization=load,
            memory_used_bytes=int(72 * GIB),
            power_w=120 + 540 * load,
            temperature_c=38 + 34 * load,
            sm_clock_mhz=1980,
        )

    def _phase(self, replica: ReplicaSpec) -> Phase:
        if replica.partition in self.phases:
            return self.phases[replica.partition]
        began = self.began.setdefault((replica.partition, replica.deployment), self.clock())
        return Phase.READY if self.clock() - began > self.starts_s else Phase.STARTING

    def _replica(self, replica: ReplicaSpec) -> ReplicaStatus:
        phase = self._phase(replica)
        load = self._load(f"{self.name}{replica.partition}", 0.5)
        passed = self.clock() - self.told_at.get(replica.partition, self.clock() - 1)
        self.told_at[replica.partition] = self.clock()
        total = self.totals[replica.partition] = self.totals.get(replica.partition, 0.0) + 900 * load * passed
        sample = EngineSample(
            running=round(6 * load),
            waiting=round(2 * load),
            kv_usage=load * 0.8,
            kv_tokens=float(len(replica.gpus) * 412_160),
            prompt_tokens_total=total * 6,
            generation_tokens_total=total,
            external_kv_tokens_total=total * 5 if replica.role == "decode" else 0.0,
            requests_total=total / 200,
            ttft_sum_s=total / 200 * 0.31,
            ttft_count=total / 200,
            itl_sum_s=total * 0.021,
            itl_count=total,
            ttft=self._histogram(replica.partition, "ttft", TTFT_BOUNDS, 0.12 + 0.4 * load**3, 4.5 * load * passed),
            itl=self._histogram(replica.partition, "itl", ITL_BOUNDS, 0.014 + 0.014 * load, 900 * load * passed),
            nixl_bytes_total=total * 5 * 131072 if replica.role == "decode" else None,
            nixl_transfers_total=total / 200 if replica.role == "decode" else None,
            nixl_transfer_s_total=total / 200 * (0.02 + 0.03 * load) if replica.role == "decode" else None,
        )
        more: dict[str, Any] = {"sample": sample, "ready_after_s": 21.4} if phase is Phase.READY else {}
        if phase is Phase.EXITED:
            more = {"restarts": 4, "message": "exited with code 1: CUDA error: out of memory"}
        return ReplicaStatus(
            partition=replica.partition,
            deployment=replica.deployment,
            role=replica.role,
            generation=replica.generation,
            phase=phase,
            phase_age_s=12.0,
            pid=4242,
            endpoint="http://127.0.0.1:1",
            engine_version="simulated",
            memory_bytes=70 * GIB,
            **more,
        )

    def _histogram(self, partition: int, name: str, les: tuple[float, ...], median: float, more: float) -> Histogram:
        """`more` values spread as such latencies are: log-normally around `median`."""
        shares = [0.5 * (1 + math.erf(math.log(le / median) / 0.35 / math.sqrt(2))) for le in les]
        counts = self.counted.setdefault((partition, name), [0.0] * (len(les) + 2))
        for place, share in enumerate([*shares, 1.0]):
            counts[place] += more * share
        counts[-1] += more * median * 1.06
        return Histogram(les=les, counts=tuple(counts[: len(les)]), count=counts[len(les)], sum=counts[-1])

    def _chunk(self, wanted: LogWanted) -> LogChunk:
        """Lines go on being written, two a second."""
        text = "ERROR feigned engine ended: out of memory\n" if wanted.previous else self._log(wanted.partition)
        begin = max(0, len(text) - 16_384) if wanted.offset < 0 else min(wanted.offset, len(text))
        return LogChunk(
            partition=wanted.partition, offset=begin, text=text[begin:][:60_000], id=wanted.id, end=len(text)
        )

    def _log(self, partition: int) -> str:
        who = f"feigned engine of partition {partition}" if partition else "feigned agent"
        return "".join(_line(who, n) for n in range(60 + int(2 * (time.time() - self.started))))


def _line(who: str, n: int) -> str:
    if n % 20 == 13:
        return f"WARNING {who}: step {n}, the KV cache is nearly full, so new requests wait\n"
    if n % 50 == 37:
        return f'ERROR {who}: step {n} failed\nTraceback (most recent call last):\n  File "feigned.py", line {n}\n'
    return f"INFO {who}: step {n}, {3 + n % 5} running, 0 waiting\n"


class Fleet:
    """Reports of all nodes once a second, until stopped. A node in `quiet` says nothing more."""

    def __init__(self, nodes: list[FeignedNode]) -> None:
        self.nodes, self.quiet, self.errors = nodes, set[str](), list[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        with httpx.Client() as client:
            while not self._ended.is_set():
                for node in self.nodes:
                    if node.name not in self.quiet and not self._ended.is_set():
                        self._report(node, client)
                self._ended.wait(1.0)

    def _report(self, node: FeignedNode, client: httpx.Client) -> None:
        try:
            node.report(client)
        except (httpx.HTTPError, AssertionError) as error:  # the web process may be stopped on purpose
            self.errors.append(f"{node.name}: {error}")
