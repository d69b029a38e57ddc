"""What is measured side by side: our gateway, vllm-router, and the bare candidates, each in its own process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "forebay-bench"
ROUTER = "vllm-router==0.1.17"
KEY = "engine-key"


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    process: subprocess.Popen[bytes]
    port: int
    key: str = "none"

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


def standin(name: str, *, itl_ms: float = 0.0) -> Peer:
    command = [sys.executable, "tests/standin_engine.py", "--name", name, "--itl-ms", str(itl_ms)]
    return _says_its_port(name, command)


def candidate(name: str, prefills: list[Peer], decodes: list[Peer]) -> Peer:
    command = [sys.executable, "bench/_candidates.py", name, "--key", KEY]
    for option, peers in (("--prefill", prefills), ("--decode", decodes)):
        command += [option, *(str(peer.port) for peer in peers)]
    return _says_its_port(name, command)


def gateway(home: Path, prefills: list[Peer], decodes: list[Peer]) -> Peer:
    """Our gateway over a database of its own, with keys, rate limits, routing, metering and records on."""
    os.environ |= {"FOREBAY_HOME": str(home), "FOREBAY_DATABASE_URL": f"sqlite:///{home / 'db.sqlite3'}"}
    os.environ |= {"DJANGO_SETTINGS_MODULE": "controlplane.settings", "FOREBAY_LOG_LEVEL": "WARNING"}
    key = _database(prefills, decodes)
    port = free_port()
    command = [sys.executable, "manage.py", "gateway", "--port", str(port)]
    return _answers(Peer("forebay", subprocess.Popen(command, cwd=ROOT), port, key))


def vllm_router(prefills: list[Peer], decodes: list[Peer]) -> Peer | None:
    """None when it is not there and can't be installed."""
    program = CACHE / "venv" / "bin" / "vllm-router"
    if not program.exists() and not _install():
        return None
    port, metrics = free_port(), free_port()
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--vllm-pd-disaggregation"]
    for option, peers in (("--prefill", prefills), ("--decode", decodes)):
        for peer in peers:
            command += [option, f"http://127.0.0.1:{peer.port}"]
    command += ["--policy", "round_robin", "--kv-connector", "nixl", "--log-level", "error"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _answers(Peer("vllm-router", process, port))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _database(prefills: list[Peer], decodes: list[Peer]) -> str:
    import django

    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from controlplane.audit.services import Actor
    from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel
    from controlplane.gateway import services

    call_command("migrate", verbosity=0)
    node = Node.objects.create(name="bench", address="127.0.0.1", token_hash="0" * 64, last_seen=timezone.now())
    model = RegisteredModel.objects.create(name="tiny", kind="folder", source="/nowhere")
    deployment = Deployment.objects.create(name="tiny", model=model)
    for role, peers in (("prefill", prefills), ("decode", decodes)):
        for peer in peers:
            Partition.objects.create(
                node=node, name=peer.name, deployment=deployment, role=role, engine_key=KEY, phase="ready",
                observed_role=role, endpoint=f"http://127.0.0.1:{peer.port}",
            )  # fmt: skip
    _, plain = services.create_key(
        name="bench", deployments=["tiny"], requests_per_minute=10_000_000, actor=Actor.system("bench")
    )
    return plain


def _install() -> bool:
    print(f"installing {ROUTER} in {CACHE} ...", file=sys.stderr)
    venv.create(CACHE / "venv", with_pip=True)
    pip = [str(CACHE / "venv" / "bin" / "pip"), "install", "-q", ROUTER]
    return subprocess.run(pip, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _says_its_port(name: str, command: list[str]) -> Peer:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return Peer(name, process, int(process.stdout.readline()))


def _answers(peer: Peer, within_s: float = 60.0) -> Peer:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{peer.port}/health", timeout=1):
                return peer
        except OSError:
            time.sleep(0.1)
    peer.stop()
    raise SystemExit(f"{peer.name} did not start")
