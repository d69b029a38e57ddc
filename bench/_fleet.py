"""A whole Forebay on CPU slots, on one or two nodes of this host, for benches: real engines or stand-ins."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import _standins
from tests.e2e.stack import ROOT, Stack, eventually, free_ports
from tests.standin_vllm import VERSION

MODEL, SECOND = "tiny", "node-b"
Row = dict[str, Any]


class Fleet:
    """Node A is the one of `manage.py up`; node B, if wanted, is a second agent that joins it."""

    def __init__(self, home: Path, *, slots: int, second: int = 0, standins: bool = False) -> None:
        self.stack = Stack(home / "home", demo=MODEL, slots=slots)
        if standins:
            print(f"  {_standins.TOLD}", flush=True)
            _standins.settle(self.stack, MODEL, home)
        self._standins = standins
        self._second_home, self._second_slots = home / "second", second
        self._agent: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        self.stack.up()
        if self._second_slots:
            self._join_second()

    def down(self) -> None:
        with ThreadPoolExecutor() as pool:
            second = pool.submit(self._stop_second)
            self.stack.clean_up()
        second.result()

    def lay(self, node: int, roles: list[str | None]) -> None:
        """One partition a slot, with these roles (None: idle); those that `up` made keep theirs."""
        for place, role in enumerate(roles):
            row = self.part(node, place) or self.stack.rest(
                "POST", "/partitions", json={"node": node, "name": f"p{place}", "gpu_indices": [place]}
            )
            if role and row["role"] != role:
                body = {"deployment": self.deployment(), "role": role, "reason": "bench"}
                self.stack.rest("POST", f"/partitions/{row['id']}/assign", json=body)

    def wait_confirmed(self, within_s: float = 300.0) -> None:
        def all_confirmed() -> bool:
            try:
                return all(row["confirmed"] for row in self.stack.partitions() if row["deployment"])
            except (httpx.TransportError, AssertionError):  # the web process is only just coming back
                return False

        eventually(all_confirmed, within_s=within_s, what="all partitions confirmed")

    def engines(self) -> str:
        """What the engines are, by what the agents found."""
        versions = sorted({row["engine_version"] for row in self.nodes()} - {""})
        return VERSION if self._standins else f"vllm {', '.join(versions)}".strip()

    def nodes(self) -> list[Row]:
        return self.stack.rest("GET", "/nodes")["results"]

    def node(self, name: str = "") -> int:
        """The id of the second node, or of the one that is not."""
        return next(row["id"] for row in self.nodes() if (row["name"] == SECOND) is (name == SECOND))

    def part(self, node: int, place: int) -> Row | None:
        return next((row for row in self.parts() if row["node"]["id"] == node and row["name"] == f"p{place}"), None)

    def parts(self, role: str | None = None) -> list[Row]:
        return [row for row in self.stack.partitions() if role is None or row["role"] == role]

    def deployment(self) -> int:
        return self.stack.rest("GET", f"/deployments?name={MODEL}")["results"][0]["id"]

    def change(self, moves: list[Row], reason: str, *, force: bool = False) -> Row:
        """Preview, then apply what was previewed."""
        seen = self.stack.rest("POST", "/changes?dry_run=true", json={"moves": moves})
        body = {"moves": moves, "version": seen["version"], "reason": reason, "force": force}
        return self.stack.rest("POST", "/changes", json=body)

    def undo(self, change: int) -> Row:
        seen = self.stack.rest("POST", f"/changes/{change}/undo?dry_run=true", json={})
        return self.stack.rest("POST", f"/changes/{change}/undo", json={"version": seen["version"], "reason": "undo"})

    async def done(self, change: int, within_s: float = 300.0) -> Row:
        """The change once it is done, looked at often; not being done is an error."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            row: Row = await asyncio.to_thread(self.stack.rest, "GET", f"/changes/{change}")
            if row["state"] == "done":
                return row
            if row["state"] != "running":
                raise RuntimeError(f"change {change} is {row['state']}: {row['message']}")
            await asyncio.sleep(0.05)
        raise RuntimeError(f"change {change} was not done within {within_s:.0f} s: {row}")

    def second_agent(self) -> psutil.Process:
        assert self._agent is not None
        return psutil.Process(self._agent.pid)

    def _join_second(self) -> None:
        each = 3 * self._second_slots
        ports = free_ports(60)[60 - 2 * each :]
        environ = self.stack.environ | {
            "FOREBAY_CPU_SLOTS": str(self._second_slots),
            "FOREBAY_ENGINE_PORTS": f"{ports[0]}-{ports[each - 1]}",
            "FOREBAY_SIDE_PORTS": f"{ports[each]}-{ports[2 * each - 1]}",
            "FOREBAY_DEVICES": "cpu",
            "FOREBAY_VLLM": self.stack.environ.get("FOREBAY_VLLM", str(ROOT / ".venv-engine" / "bin" / "vllm")),
            "FOREBAY_JOIN_TOKEN": self.stack.rest("POST", "/join-tokens", json={})["token"],
        }
        command = [sys.executable, "-m", "workers", "join", self.stack.web, "--name", SECOND]
        with self._second_home.with_suffix(".log").open("wb") as out:
            self._agent = subprocess.Popen(
                [*command, "--home", str(self._second_home)], cwd=ROOT, env=environ, stdout=out, stderr=out
            )
        eventually(lambda: len(self.nodes()) == 2, within_s=60, what="the second node")
        devices = f"/gpus?node={self.node(SECOND)}"
        eventually(lambda: self.stack.rest("GET", devices)["results"], within_s=60, what="its devices")

    def _stop_second(self) -> None:
        if self._agent is None:
            return
        self._agent.terminate()
        self._agent.wait(30)
        command = [sys.executable, "-m", "workers", "stop", "--home", str(self._second_home)]
        subprocess.run(command, cwd=ROOT, env=self.stack.environ, check=False, timeout=120, capture_output=True)
