"""What playing a simulated fleet costs, and whether it keeps time: the real player, and a server that answers at once.

    python -m bench.simulated_fleet [--nodes 1000] [--gpus 8] [--seconds 60] [--quick]

The server is another process: it gives each node four engines to run with its first answer, and nothing after. So these
are the player's own costs, and none of the control plane's; bench/fleet.py has those.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from workers.contract import NodeReport, NodeSpec, ReplicaSpec, ReportReply, Role
from workers.simulated_fleet.host import Curve
from workers.simulated_fleet.player import Fleet, Seat, Told, play

ROLES = (Role.PREFILL, Role.DECODE, Role.DECODE, Role.PREFILL)
SETTLE_S = 20.0  # engines are ready after 14 s at most


class _Taker(asyncio.Protocol):
    """Answers each report; the first of a node is read, as its spec names its devices."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._has_spec, self._left, self._body = transport, False, 0, b""

    def data_received(self, data: bytes) -> None:
        if not self._left:
            head, _, data = data.partition(b"\r\n\r\n")
            self._left, self._body = int(head.rpartition(b"content-length: ")[2]), b""
        self._left -= len(data)
        if not self._has_spec:
            self._body += data
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        reply = ReportReply(at=time.time())
        if not self._has_spec:
            reply, self._has_spec = _first(msgspec.json.decode(self._body, type=NodeReport)), True
        body = msgspec.json.encode(reply)
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))  # type: ignore[attr-defined]


def _first(report: NodeReport) -> ReportReply:
    devices = [device.uuid for device in report.devices]
    size = max(1, len(devices) // len(ROLES))
    groups = [tuple(devices[at : at + size]) for at in range(0, size * len(ROLES), size)]
    replicas = tuple(
        ReplicaSpec(
            partition=place + 1, name=f"p{place}", deployment="m", role=role, gpus=gpus, model="/m",
            served_names=("m",), generation=1,
        )
        for place, (role, gpus) in enumerate(zip(ROLES, groups, strict=True)) if gpus
    )  # fmt: skip
    return ReportReply(at=time.time(), spec=NodeSpec(node=report.node, generation=1, replicas=replicas))


def _take(told: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Taker, "127.0.0.1", 0, backlog=4096)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measure(nodes: int, gpus: int, seconds: float, port: int) -> dict[str, float]:
    seats = [Seat(node=n, name=f"sim-{n:04d}", token="t", instance=f"i{n}") for n in range(1, nodes + 1)]
    fleet, told = Fleet(seats, gpus=gpus, curve=Curve("day", 1)), Told()
    began, marks = time.monotonic(), []

    def is_over() -> bool:
        gone = time.monotonic() - began
        if gone >= SETTLE_S and not marks:
            marks.append((time.monotonic(), time.process_time(), told.answered, told.late, told.lost))
        return gone >= SETTLE_S + seconds

    asyncio.run(play(fleet, seats, host="127.0.0.1", port=port, is_over=is_over, told=told))
    (wall, cpu, answered, late, lost) = marks[0]
    wall, cpu, count = time.monotonic() - wall, time.process_time() - cpu, told.answered - answered
    return {
        "nodes": nodes, "gpus": nodes * gpus, "reports": count, "per_s": round(count / wall, 1),
        "late": told.late - late, "lost": told.lost - lost, "cpu_cores": round(cpu / wall, 3),
        "cpu_ms_per_report": round(1000 * cpu / count, 3),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="100 nodes for 10 s")
    options = parser.parse_args()
    nodes, seconds = (100, 10.0) if options.quick else (options.nodes, options.seconds)
    mine, theirs = multiprocessing.Pipe()
    taker = multiprocessing.get_context("spawn").Process(target=_take, args=(theirs,), daemon=True)
    taker.start()
    try:
        found = measure(nodes, options.gpus, seconds, mine.recv())
    finally:
        taker.terminate()
    print(f"  {found['nodes']} nodes, {found['gpus']} GPUs: {found['per_s']} reports a second, {found['late']} late, "
          f"{found['lost']} lost; {found['cpu_cores']} cores, {found['cpu_ms_per_report']} ms a report")  # fmt: skip
    print(f"RESULT {json.dumps(found)}")


if __name__ == "__main__":
    main()
