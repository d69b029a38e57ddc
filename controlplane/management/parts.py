"""The parts that a machine runs: their command lines, and how each shows that it is ready."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import redis
from django.conf import settings

from controlplane.celery import app as celery
from controlplane.management import valkey
from controlplane.management.machine import Machine
from controlplane.management.supervisor import Part

PYTHON = sys.executable
AGENT_FINAL = frozenset({75, 78})  # another agent runs under this identity; not joined, or revoked


def valkey_part(machine: Machine) -> Part:
    return Part("valkey", valkey.command(machine), machine.logs / "valkey.log")


def web_part(machine: Machine) -> Part:
    command = [
        PYTHON, "-m", "uvicorn", "controlplane.asgi:application",
        "--host", machine.host, "--port", str(machine.web_port),
        "--http", "controlplane.wire:Wire", "--no-access-log", "--log-level", "warning",
        "--timeout-graceful-shutdown", "3",
    ]  # fmt: skip
    if settings.WEB_PROCESSES > 1:
        command += ["--workers", str(settings.WEB_PROCESSES)]
    return Part("web", command, machine.logs / "web.log")


def gateway_part(machine: Machine) -> Part:
    command = [PYTHON, "manage.py", "gateway", "--host", machine.host, "--port", str(machine.gateway_port)]
    return Part("gateway", command, machine.logs / "gateway.log", grace_s=20.0)


def worker_part(machine: Machine) -> Part:
    """The control plane's own periodic work. Solo pool: its tasks take milliseconds."""
    command = [
        PYTHON, "-m", "celery", "-A", "controlplane.celery", "worker", "-B", "-P", "solo", "-Q", "control",
        "-n", f"control-{machine.web_port}@%h", "-s", str(machine.home / "celerybeat-schedule"),
        "--without-gossip", "--without-mingle", "-l", "INFO",
    ]  # fmt: skip
    return Part("worker", command, machine.logs / "worker.log")


def agent_part(machine: Machine) -> Part:
    command = [PYTHON, "-m", "workers", "run", "--home", str(machine.agent_home)]
    return Part("agent", command, machine.logs / "agent.log", grace_s=20.0, final=AGENT_FINAL)


def control_plane(machine: Machine) -> list[tuple[Part, Callable[[], bool]]]:
    """What runs besides the broker and the agent, each with how it shows that it is ready."""
    worker = worker_part(machine)
    return [
        (web_part(machine), lambda: answers(f"{machine.web_url}{settings.STATIC_URL}css/tokens.css")),
        (gateway_part(machine), lambda: answers(f"{machine.gateway_url}/health")),
        (worker, lambda: worker_answers(worker)),
    ]


def worker_answers(worker: Part) -> bool:
    name = worker.command[worker.command.index("-n") + 1].replace("%h", socket.gethostname())
    return bool(celery.control.ping(destination=[name], timeout=0.5))


def answers(url: str) -> bool:
    """Whether a web server there says anything but an error of its own."""
    try:
        return httpx.get(url, timeout=5.0, follow_redirects=False).status_code < 500
    except httpx.HTTPError:
        return False


def pings(redis_url: str) -> bool:
    client = redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=1.0)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
