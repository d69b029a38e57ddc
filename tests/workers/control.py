"""A control plane of a few lines for the agent's tests: it joins one node, takes reports, answers with a spec."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import psutil

from workers.contract import (
    LogWanted,
    NodeReport,
    NodeSpec,
    Phase,
    ReplicaSpec,
    ReplicaStatus,
    ReportReply,
    Role,
)
from workers.joining import JoinReply, JoinRequest
from workers.qualification import QualifyWanted
from workers.weights import FetchWanted

ROOT = Path(__file__).parents[2]
NODE = 7


class Control:
    """What it was told last, and what it will answer."""

    def __init__(self) -> None:
        self.spec: NodeSpec | None = None
        self.status, self.problem, self.headers = 200, "", {}
        self.logs: tuple[LogWanted, ...] = ()
        self.reports: list[NodeReport] = []
        self.joins: list[JoinRequest] = []
        self.broker_url = ""
        self.answer_specs, self.ask_weights = True, False
        self.url, self.period_s = "", 0.3

    @property
    def last(self) -> NodeReport:
        return self.reports[-1]

    def want(
        self, *replicas: ReplicaSpec, qualify: tuple[QualifyWanted, ...] = (), fetch: tuple[FetchWanted, ...] = ()
    ) -> int:
        generation = (self.spec.generation if self.spec else 0) + 1
        self.spec = NodeSpec(
            node=NODE,
            generation=generation,
            replicas=tuple(msgspec.structs.replace(r, generation=generation) for r in replicas),
            qualify=qualify,
            fetch=fetch,
        )
        return generation

    def replica(self, partition: int) -> ReplicaStatus | None:
        found = [r for r in self.last.replicas if r.partition == partition] if self.reports else []
        return found[0] if found else None

    def is_ready(self, partition: int) -> bool:
        replica, spec = self.replica(partition), self.spec
        wanted = {r.partition: r for r in spec.replicas} if spec else {}
        return (
            replica is not None and replica.phase == Phase.READY and replica.generation >= wanted[partition].generation
        )

    def handle(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
        if path == "/agent/v1/join":
            request = msgspec.json.decode(body, type=JoinRequest)
            if request.token != "join-me":
                problem = {"type": "join-token-unknown", "title": "Join refused", "detail": "no such join token"}
                return 403, json.dumps(problem).encode()
            self.joins.append(request)
            reply = JoinReply(
                node=NODE, name=request.name, node_token="node-secret", broker_url=self.broker_url,
                queue=f"node.{NODE}", period_s=0.3, at=time.time(),
            )  # fmt: skip
            return 200, msgspec.json.encode(reply)
        assert path == "/agent/v1/report" and token == "Bearer node-secret"
        report = msgspec.json.decode(body, type=NodeReport)
        self.reports.append(report)
        if self.status != 200:
            return self.status, json.dumps({"type": self.problem, "title": "no", "status": self.status}).encode()
        newer = self.spec if self.spec and self.answer_specs and self.spec.generation > report.generation else None
        reply = ReportReply(
            at=time.time(), spec=newer, logs=self.logs, period_s=self.period_s, weights=self.ask_weights
        )
        return 200, msgspec.json.encode(reply)


@contextmanager
def control_plane() -> Iterator[Control]:
    control = Control()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = control.handle(self.path, self.headers.get("Authorization", ""), body)
            self.send_response(status)
            for name, value in control.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    control.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield control
    server.shutdown()
    server.server_close()
    thread.join()


class AgentProcess:
    """The real agent as a process of its own, on a home of its own."""

    def __init__(self, home: Path, control: Control, **environ: str) -> None:
        self.home, self.control = home, control
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FOREBAY_")} | environ
        self._popen: subprocess.Popen[bytes] | None = None

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "workers", *args, "--home", str(self.home)]
        return subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def join(self) -> None:
        done = self.command("join", self.control.url, "--token", "join-me", "--name", "n1", "--no-run")
        assert done.returncode == 0, done.stderr

    def start(self) -> int:
        log = (self.home.parent / "agent.log").open("ab")
        argv = [sys.executable, "-m", "workers", "run", "--home", str(self.home)]
        with log:
            self._popen = subprocess.Popen(argv, cwd=ROOT, env=self.env, stdout=log, stderr=log)
        return self._popen.pid

    def kill(self, signum: int = signal.SIGKILL) -> int:
        assert self._popen is not None
        self._popen.send_signal(signum)
        return self._popen.wait(30)

    def wait(self, timeout_s: float = 30) -> int:
        assert self._popen is not None
        return self._popen.wait(timeout_s)

    def end(self) -> None:
        """Agent and engines, whatever state they are in."""
        if self._popen and self._popen.poll() is None:
            self.kill(signal.SIGTERM)
        if (self.home / "agent.json").exists():
            self.command("stop", "--grace", "2")

    def log(self) -> str:
        return (self.home.parent / "agent.log").read_text()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what or condition}")


def make_spec(
    partition: int = 1, *, role: Role = Role.DECODE, gpus: tuple[str, ...] = (), **changes: Any
) -> ReplicaSpec:
    values: dict[str, Any] = {
        "partition": partition, "name": f"p{partition}", "deployment": "demo", "role": role,
        "gpus": gpus or (f"SIM-n1-{partition - 1}",), "model": "/models/demo", "served_names": ("demo",),
        "engine": "simulated", "api_key": "engine-key-of-the-test", "drain_s": 5.0, "kv_lease_s": 1,
    }  # fmt: skip
    return ReplicaSpec(**(values | changes))
