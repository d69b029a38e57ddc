"""Reassignment under load: flips, a drain and a change of three moves while clients stream.

usage: python -m bench.reassign [--quick] [--requests 2000]

Two nodes on this host, 2 prefill and 2 decode engines on CPU slots: real ones of the tiny model. Eight clients stream
completions all the time; each text is compared with what undisturbed engines say.

--quick: the same Forebay around *stand-in* engines, in under 50 s on an idle machine. It shows what flips, replacements
and a drain do to requests, not how long a real engine takes to start, stop or shake hands.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from bench import _standins
from bench._fleet import MODEL, SECOND, Fleet, Row
from bench._streams import Streams

RELABELS, QUICK_RELABELS = 12, 2


@dataclass(slots=True)
class Timing:
    relabel_s: list[float] = field(default_factory=list)
    replace_s: list[tuple[float, float, float]] = field(default_factory=list)  # whole, own start, drain
    stops_s: list[float] = field(default_factory=list)  # from SIGTERM to the engine's end, a part of the overhead

    @property
    def overheads_s(self) -> list[float]:
        """What a replacement takes besides its engine's start and its drain."""
        return [whole - start - drain for whole, start, drain in self.replace_s]


class Bench:
    def __init__(self, fleet: Fleet, streams: Streams, *, quick: bool) -> None:
        self.fleet, self.streams, self.quick = fleet, streams, quick
        self.timing = Timing()
        self._flipped = asyncio.Event()
        self.rows: list[tuple[str, int, int, int, str]] = []

    async def section(self, name: str, work: object) -> None:
        """Run one part under load and note what became of the requests meanwhile."""
        before = self.streams.tally.copy()
        said = await work  # type: ignore[misc]
        await asyncio.sleep(0.5 if self.quick else 1.0)
        requests, failed, wrong = self.streams.tally.since(before)
        self.rows.append((name, requests, failed, wrong, said))
        print(f"  {name:<28} {requests:>6} {failed:>7} {wrong:>6}  {said}", flush=True)

    async def relabels(self) -> str:
        """A decode engine becomes a prefill engine and back, each a change of its own."""
        for turn in range(QUICK_RELABELS if self.quick else RELABELS):
            part = self._parts("decode")[0] if turn % 2 == 0 else self._last
            self._last = part
            role = "prefill" if turn % 2 == 0 else "decode"
            self.timing.relabel_s.append(await self._flip(part, role, "relabel"))
        seconds = self.timing.relabel_s
        return f"{len(seconds)} flips, p50 {median(seconds):.2f} s, max {max(seconds):.2f} s"

    async def replacements(self) -> str:
        """A decode engine becomes an aggregated one and back: other engine content, so that it starts anew."""
        part = self._parts("decode")[-1]
        for role in ("aggregated",) if self.quick else ("aggregated", "decode"):
            self._flipped = asyncio.Event()
            watched = asyncio.create_task(self._phases_s(part))
            whole = await self._flip(part, role, "replace")
            self._flipped.set()
            row, phases = await self._rest("GET", f"/partitions/{part['id']}"), await watched
            self.timing.replace_s.append((whole, row["ready_after_s"], phases.get("draining", 0.0)))
            self.timing.stops_s.append(phases.get("stopping", 0.0))
        told = zip(self.timing.replace_s, self.timing.stops_s, strict=True)
        return "; ".join(f"{w:.1f} s: drain {d:.1f}, stop {e:.1f}, start {s:.1f}" for (w, s, d), e in told)

    async def drain(self) -> str:
        """The second node is drained, its engines first replaced on the first one; then all of it is undone."""
        node = self.fleet.node(SECOND)
        began = time.monotonic()
        seen = await self._rest("POST", f"/nodes/{node}/drain?dry_run=true", json={"move": True})
        body = {"move": True, "reason": "bench", "version": seen["version"]}
        change = await self._rest("POST", f"/nodes/{node}/drain", json=body)
        await self.fleet.done(change["id"], 400)
        moved = time.monotonic() - began
        while (await self._rest("GET", f"/nodes/{node}"))["status"] != "drained":
            await asyncio.sleep(0.2)
        drained = time.monotonic() - began
        began = time.monotonic()
        await self.fleet.done((await asyncio.to_thread(self.fleet.undo, change["id"]))["id"], 400)
        await asyncio.to_thread(self.fleet.wait_confirmed)
        return f"moved {moved:.1f} s, drained {drained:.1f} s, undone {time.monotonic() - began:.1f} s"

    async def three_moves(self) -> str:
        """Three moves as one change, and its undo."""
        one, two = self._parts("decode"), self._parts("prefill")
        moves = [self._move(one[0], "prefill"), self._move(two[0], "decode"), self._move(two[1], "aggregated")]
        began = time.monotonic()
        change = await asyncio.to_thread(self.fleet.change, moves, "bench: three moves")
        await self.fleet.done(change["id"], 400)
        there = time.monotonic() - began
        began = time.monotonic()
        await self.fleet.done((await asyncio.to_thread(self.fleet.undo, change["id"]))["id"], 400)
        return f"done {there:.1f} s, undone {time.monotonic() - began:.1f} s"

    async def _flip(self, part: Row, role: str, action: str) -> float:
        """Seconds from the click to the change being done."""
        moves = [self._move(part, role)]
        seen = await self._rest("POST", "/changes?dry_run=true", json={"moves": moves})
        if seen["moves"][0]["action"] != action:
            raise RuntimeError(f"{part['name']} to {role} is a {seen['moves'][0]['action']}, not a {action}")
        began = time.monotonic()
        body = {"moves": moves, "version": seen["version"], "reason": f"bench: {action}"}
        change = await self._rest("POST", "/changes", json=body)
        await self.fleet.done(change["id"])
        seconds = time.monotonic() - began
        await asyncio.sleep(0.5)
        return seconds

    async def _phases_s(self, part: Row) -> dict[str, float]:
        """How long the partition is seen in each phase, until cancelled."""
        seen: dict[str, float] = {}
        last = time.monotonic()
        while not self._flipped.is_set():
            phase = (await self._rest("GET", f"/partitions/{part['id']}"))["phase"] or "none"
            now = time.monotonic()
            seen[phase] = seen.get(phase, 0.0) + now - last
            last = now
            await asyncio.sleep(0.2)
        return seen

    def _parts(self, role: str) -> list[Row]:
        """Those of the first node first, whatever the host's name."""
        return sorted(self.fleet.parts(role), key=lambda row: row["node"]["name"] == SECOND)

    def _move(self, part: Row, role: str) -> Row:
        return {"partition": part["id"], "deployment": part["deployment"]["id"], "role": role}

    async def _rest(self, method: str, path: str, **more: object) -> Row:
        return await asyncio.to_thread(self.fleet.stack.rest, method, path, **more)


async def measure(fleet: Fleet, *, quick: bool, requests: int) -> Bench:
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        streams = Streams(fleet.stack.gateway, fleet.stack.key, MODEL)
        if quick:
            streams.know(_standins.text)
        else:
            await streams.learn(session)
        bench = Bench(fleet, streams, quick=quick)
        print(f"  {'under load of 8 clients':<28} {'requests':>6} {'failed':>7} {'wrong':>6}")
        streams.start(session)
        try:
            await bench.section("undisturbed", _rest(1.0 if quick else 10.0))
            await bench.section("relabel flips", bench.relabels())
            await bench.section("replace flips", bench.replacements())
            await bench.section("node drain and undo", bench.drain())
            if not quick:
                await bench.section("three moves and undo", bench.three_moves())
                left = requests - streams.tally.requests
                if left > 0:
                    await bench.section("relabel flips, more", bench.relabels())
                    await streams.until(lambda tally: tally.requests >= requests, within_s=300)
        finally:
            await streams.stop()
        return bench


async def _rest(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return ""


def report(bench: Bench, engines: str) -> None:
    tally, timing = bench.streams.tally, bench.timing
    print(f"\n  {tally.requests} requests, {tally.failed} failed, {tally.wrong} wrong, {tally.continued} continued; "
          f"slowest {tally.slowest_s:.1f} s")  # fmt: skip
    for why, count in sorted(tally.why.items(), key=lambda item: -item[1])[:8]:
        print(f"    {count} x {why}")
    overheads = timing.overheads_s
    figures = {
        "engines": engines,
        "requests": tally.requests,
        "failed": tally.failed,
        "wrong": tally.wrong,
        "relabel_p50_s": round(median(timing.relabel_s), 3),
        "relabel_max_s": round(max(timing.relabel_s), 3),
        "replace_overhead_s": round(max(overheads), 3) if overheads else None,
    }
    print(f"RESULT {json.dumps(figures)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        fleet = Fleet(Path(folder), slots=4, second=1 if options.quick else 2, standins=options.quick)
        try:
            began = time.monotonic()
            fleet.up()
            node_a = fleet.node()
            if options.quick:
                # What ever was prefill waits for the lease of its blocks before it goes: no such engine is drained.
                fleet.lay(node_a, ["prefill", "decode", "decode", None])
                fleet.lay(fleet.node(SECOND), ["decode"])
            else:
                fleet.lay(node_a, ["prefill", "decode", None, None])
                fleet.lay(fleet.node(SECOND), ["prefill", "decode"])
            fleet.wait_confirmed()
            print(f"  engines ready after {time.monotonic() - began:.0f} s")
            bench = asyncio.run(measure(fleet, quick=options.quick, requests=options.requests))
            report(bench, fleet.engines())
        finally:
            fleet.down()


if __name__ == "__main__":
    main()
