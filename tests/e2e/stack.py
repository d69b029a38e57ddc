"""A whole Forebay for tests: `manage.py up` with real engines, on free ports, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests import bytecode

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"
UP_S = 420.0  # two engines start in half a minute on two idle cores; other load may multiply that
DOWN_S = 120.0
# Several KV blocks of 32 tokens: a prompt shorter than one block leaves nothing to transfer.
LONG = "The pool that holds water ready in front of a turbine is called a forebay. " * 6
T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Ports that nothing holds now, below the range that the kernel gives to outgoing connections."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start, found = 20000 + os.getpid() * 7 % 8000, []
    for port in range(start, min(low, 32000)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def make_tiny_model(folder: Path, python: Path = ENGINE_PYTHON) -> None:
    """Random weights that the real engine serves on a CPU."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = ROOT / "workers" / "engines" / "cpu" / "make_tiny_model.py"
    subprocess.run([python, script, folder], check=True, timeout=300, capture_output=True)


def eventually(look: Callable[[], T | None], *, within_s: float, what: str) -> T:
    """The first true thing that `look` says."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


@dataclass
class Stack:
    home: Path
    demo: str = "tiny"
    slots: int = 2
    process: subprocess.Popen[bytes] | None = None
    password: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    _token: str = ""

    def __post_init__(self) -> None:
        each = 3 * self.slots  # engines that end and others that start hold ports at the same time
        ports = free_ports(3 + 2 * each)
        self.web, self.gateway, self.valkey = (f"http://127.0.0.1:{port}" for port in ports[:3])
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FOREBAY_", "DJANGO_"))}
        if vllm := os.environ.get("FOREBAY_VLLM"):
            clean["FOREBAY_VLLM"] = vllm
        bytecode.keep(clean)
        self.environ = clean | {
            "FOREBAY_HOME": str(self.home),
            "FOREBAY_WEB_PORT": str(ports[0]),
            "FOREBAY_GATEWAY_PORT": str(ports[1]),
            "FOREBAY_VALKEY_PORT": str(ports[2]),
            "FOREBAY_ENGINE_PORTS": f"{ports[3]}-{ports[2 + each]}",
            "FOREBAY_SIDE_PORTS": f"{ports[3 + each]}-{ports[2 + 2 * each]}",
            "FOREBAY_CPU_SLOTS": str(self.slots),
            "DEMO": self.demo,
        }

    # --- the supervisor ---------------------------------------------------------------------------------

    def up(self, within_s: float = UP_S) -> float:
        """Start, wait until it says that it is up; the seconds that took."""
        began = time.monotonic()
        self.said = self.home.with_name(f"{self.home.name}.said-{int(began * 1000)}")
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def is_up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"up ended:\n{self.said.read_text()}"
            return "Ctrl-C stops everything" in self.said.read_text()

        try:
            eventually(is_up, within_s=within_s, what="up")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said.read_text()}") from None
        if found := re.search(r"password (\S+) ", self.said.read_text()):
            self.password = self.password or found[1]
        return time.monotonic() - began

    def down(self) -> str:
        """SIGTERM; what it said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DOWN_S) == 0, self.said.read_text()
        return self.said.read_text()

    def kill(self) -> None:
        """As if the supervisor had never had a chance."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def part(self, words: str) -> psutil.Process:
        """The supervisor's child whose command line has these words."""
        return eventually(lambda: self._part(words), within_s=30, what=f"a part {words}")

    def _part(self, words: str) -> psutil.Process | None:
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            try:
                if words in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue  # it ended just now
        return None

    def clean_up(self) -> None:
        """Whatever a failed test left: the supervisor, then engines that carry this home's name."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DOWN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        subprocess.run(
            [sys.executable, "-m", "workers", "stop", "--home", str(self.home / "agent")],
            cwd=ROOT, env=self.environ, check=False, timeout=120, capture_output=True,
        )  # fmt: skip

    # --- what it serves ---------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return (self.home / "api_key").read_text().strip()

    def rest(self, method: str, path: str, **more: Any) -> Any:
        """One call of the REST API as the administrator."""
        if not self._token:
            made = httpx.post(f"{self.web}/api/v1/tokens", auth=("admin", self.password), json={}, timeout=30)
            made.raise_for_status()
            self._token = made.json()["token"]
        headers = {"Authorization": f"Token {self._token}"}
        reply = httpx.request(method, f"{self.web}/api/v1{path}", headers=headers, timeout=30, **more)
        assert reply.status_code < 400, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def partitions(self) -> list[dict[str, Any]]:
        return self.rest("GET", "/partitions")["results"]

    def partition(self, role: str) -> dict[str, Any]:
        return next(partition for partition in self.partitions() if partition["role"] == role)

    def engine_key(self, partition_id: int) -> str:
        """The engine's own key, which no API tells: it is for the gateway."""
        with sqlite3.connect(f"file:{self.home / 'db.sqlite3'}?mode=ro", uri=True) as database:
            row = database.execute("SELECT engine_key FROM fleet_partition WHERE id = ?", (partition_id,)).fetchone()
        return str(row[0])

    def engine_pids(self) -> dict[int, int]:
        """Partition -> pid of its engine."""
        return dict(self._leaders())

    def engines(self) -> Counter[int]:
        """How many engines each partition has: more than one is what must never be."""
        return Counter(partition for partition, _ in self._leaders())

    def _leaders(self) -> Iterator[tuple[int, int]]:
        """(partition, pid) of each engine: the agent's marker is in its environment, and it leads a session."""
        ours = self.instance
        for process in psutil.process_iter():
            try:
                marker = process.environ().get("FOREBAY_REPLICA", "")
                leads = process.pid == os.getsid(process.pid)
            except (psutil.Error, OSError):
                continue  # it ended just now
            if leads and marker.partition("/")[0] == ours:
                yield int(marker.split("/")[1]), process.pid

    @property
    def instance(self) -> str:
        """How this agent marks its engines."""
        return str(json.loads((self.home / "agent" / "agent.json").read_text())["instance"])

    def metric(self, partition: dict[str, Any], name: str, **labels: str) -> float:
        """One value of the engine's own /metrics; labels must match."""
        text = httpx.get(f"{partition['endpoint']}/metrics", timeout=30).text
        total = 0.0
        for line in text.splitlines():
            found = re.match(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)$", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def complete(self, prompt: str, tokens: int = 16, **more: Any) -> httpx.Response:
        """One completion through the gateway at temperature 0."""
        return httpx.post(
            f"{self.gateway}/v1/completions",
            headers={"Authorization": f"Bearer {self.key}"},
            json={"model": self.demo, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more},
            timeout=60,
        )

    def wait_serving(self, within_s: float = 180.0) -> None:
        """Until a request is served by a prefill and a decode engine again."""

        def serves() -> bool:
            try:
                reply = self.complete(LONG, 1)
            except httpx.TransportError:  # the gateway is only just starting
                return False
            return reply.status_code == 200 and reply.headers.get("x-forebay-path") == "two_step"

        eventually(serves, within_s=within_s, what="a two-step answer")
