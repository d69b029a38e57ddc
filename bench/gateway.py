"""What a request costs in the gateway, beside vllm-router in the same run, against stand-in engines.

    python -m bench.gateway [--quick] [--candidates]

One-token requests and streams of 256 tokens (one event each, every 2 ms), two prefill and two decode engines.
CPU is user and system time of the whole process, its threads included, from /proc. The last line is for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench import _candidates, _peers
from bench._load import Shot, cpu_seconds, fire

STREAM_TOKENS, ITL_MS = 256, 2.0
PROMPT = "The pool that holds water ready in front of a turbine is called a forebay. " * 14
WARM_UP = 32  # requests to each peer that are not measured
SETTLE_S = 1.1  # for what a process does after the answers, such as writing records
# (streams, concurrency) -> requests of one round
ROUND = {(False, 1): 400, (False, 8): 1600, (False, 32): 1600, (True, 1): 2, (True, 8): 24, (True, 32): 96}


@dataclass
class Cell:
    """All rounds of one peer at one load."""

    shots: list[Shot] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / len(self.shots) * 1e3

    def at(self, share: float) -> float:
        ordered = sorted(shot.seconds for shot in self.shots)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


Cells = dict[tuple[bool, int, str], Cell]


def request(key: str, *, stream: bool) -> bytes:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": STREAM_TOKENS if stream else 1, "temperature": 0}
    raw = json.dumps(body | ({"stream": True} if stream else {})).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


async def measure(peers: list[_peers.Peer], rounds: int, scale: float) -> Cells:
    """The peers take turns in each round, so that what else the machine does meets all of them."""
    cells: Cells = defaultdict(Cell)
    for peer in peers:
        for stream in (False, True):
            await fire(peer.port, request(peer.key, stream=stream), concurrency=4, count=WARM_UP // 2)
    for _ in range(rounds):
        for (stream, concurrency), count in ROUND.items():
            for peer in peers:
                await _round(cells[stream, concurrency, peer.name], peer, stream, concurrency, int(count * scale))
    return cells


async def _round(cell: Cell, peer: _peers.Peer, stream: bool, concurrency: int, count: int) -> None:
    before = cpu_seconds(peer.pid)
    shots = await fire(peer.port, request(peer.key, stream=stream), concurrency=concurrency, count=max(count, 1))
    await asyncio.sleep(SETTLE_S)
    if wrong := [shot for shot in shots if shot.status != 200]:
        raise SystemExit(f"{peer.name}: {len(wrong)} of {len(shots)} answers were {wrong[0].status}")
    cell.cpu_s += cpu_seconds(peer.pid) - before
    cell.shots += shots


def prove_two_steps(peer: _peers.Peer, cells: Cells) -> None:
    """What is compared must be the same work: every request was prefilled and handed over, at the first attempt."""
    time.sleep(1.0)
    with urllib.request.urlopen(f"http://127.0.0.1:{peer.port}/metrics") as reply:
        lines = [
            line for line in reply.read().decode().splitlines() if line.startswith("forebay_gateway_requests_total")
        ]
    others = [line for line in lines if 'path="two_step"' not in line or 'outcome="ok"' not in line]
    count = sum(float(line.rpartition(" ")[2]) for line in lines)
    expected = sum(len(cell.shots) for (_, _, name), cell in cells.items() if name == peer.name) + WARM_UP
    if others or count != expected:
        raise SystemExit(f"not all of {expected} requests took two steps: {lines}")


def table(cells: Cells) -> str:
    lines = [f"{'load':<22}{'':<22}{'CPU ms':>9}{'p50 ms':>10}{'p99 ms':>10}{'requests':>10}"]
    for (stream, concurrency, name), cell in cells.items():
        load = f"{f'stream of {STREAM_TOKENS}' if stream else 'one token'} c={concurrency}"
        lines.append(
            f"{load:<22}{name:<22}{cell.cpu_ms:>9.3f}{cell.at(0.5):>10.2f}{cell.at(0.99):>10.2f}{len(cell.shots):>10}"
        )
    return "\n".join(lines)


def result(cells: Cells) -> dict[str, float | None]:
    ours, theirs = "forebay", "vllm-router"

    def ratio(one: float, key: tuple[bool, int], of: str) -> float | None:
        other = cells.get((*key, theirs))
        if other is None:
            return None
        base = other.cpu_ms if of == "cpu" else other.at(0.5)
        return round(one / base, 3) if base else None

    token, stream, alone = cells[False, 8, ours], cells[True, 8, ours], cells[False, 1, ours]
    return {
        "cpu_ms_per_request": round(token.cpu_ms, 3),
        "ratio_cpu_vs_vllm_router": ratio(token.cpu_ms, (False, 8), "cpu"),
        "stream_cpu_ms": round(stream.cpu_ms, 3),
        "ratio_stream_cpu_vs_vllm_router": ratio(stream.cpu_ms, (True, 8), "cpu"),
        "p50_ms_c1": round(alone.at(0.5), 3),
        "ratio_p50_c1_vs_vllm_router": ratio(alone.at(0.5), (False, 1), "p50"),
    }


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="under 50 s")
    flags.add_argument("--candidates", action="store_true", help="the bare library candidates too")
    options = flags.parse_args()
    started: list[_peers.Peer] = []
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home:
        try:
            prefills = [_peers.standin(f"p{i}") for i in range(2)]
            decodes = [_peers.standin(f"d{i}", itl_ms=ITL_MS) for i in range(2)]
            started += [*prefills, *decodes]
            peers = [_peers.gateway(Path(home), prefills, decodes)]
            if router := _peers.vllm_router(prefills, decodes):
                peers.append(router)
            else:
                print("vllm-router cannot be installed here: no ratios")
            if options.candidates:
                peers += [_peers.candidate(name, prefills, decodes) for name in _candidates.ALL]
            started += peers
            cells = uvloop.run(measure(peers, 1 if options.quick else 4, 0.6 if options.quick else 1.0))
            prove_two_steps(peers[0], cells)
        finally:
            for peer in started:
                peer.stop()
    print(table(cells))
    found = result(cells)
    print("\n".join(f"{name:<34}{'' if value is None else value}" for name, value in found.items()))
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
