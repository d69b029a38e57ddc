"""One machine that runs all parts: its addresses, ports and folder, and the environment that tells of them."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from controlplane.management.steps import StepFailed

PREPARED = "FOREBAY_UP_PREPARED"  # set once the environment below has been put into a process
LEFTOVER_S = 8.0  # parts of a killed supervisor are given this long to leave their ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    home: Path
    host: str
    web_port: int
    gateway_port: int
    valkey_host: str
    valkey_port: int
    embedded_valkey: bool
    demo: str
    keep_engines: bool

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def agent_home(self) -> Path:
        return self.home / "agent"

    @property
    def address(self) -> str:
        """Where other programs reach this machine: FOREBAY_HOST, or its own address when that means "all"."""
        return _own_address() if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104

    @property
    def web_url(self) -> str:
        """For programs on this machine: whatever proxy the public address leads through is left out."""
        return f"http://{_in_url(self._own_side)}:{self.web_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://{_in_url(self._own_side)}:{self.gateway_port}"

    @property
    def _own_side(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(self.host)


def read(environ: Mapping[str, str], home: Path) -> Machine:
    """The machine that these environment variables describe."""
    return Machine(
        home=home,
        host=environ.get("FOREBAY_HOST", "127.0.0.1"),
        web_port=_port(environ, "FOREBAY_WEB_PORT", 8000),
        gateway_port=_port(environ, "FOREBAY_GATEWAY_PORT", 8001),
        valkey_host=environ.get("FOREBAY_VALKEY_HOST", "127.0.0.1"),
        valkey_port=_port(environ, "FOREBAY_VALKEY_PORT", 8002),
        embedded_valkey=environ.get(PREPARED) == "valkey" or "FOREBAY_REDIS_URL" not in environ,
        demo=environ.get("DEMO", "smollm2"),
        keep_engines=environ.get("KEEP_ENGINES", "") in {"1", "true", "yes"},
    )


def variables(machine: Machine, environ: Mapping[str, str], *, valkey_password: str) -> dict[str, str]:
    """What the parts must know beyond what the person set; what the person set is never changed."""
    host = _in_url(machine.address)
    made = {
        PREPARED: "valkey" if machine.embedded_valkey else "external",
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "FOREBAY_HOME": str(machine.home),
        "FOREBAY_PUBLIC_URL": f"http://{host}:{machine.web_port}",
        "FOREBAY_GATEWAY_URL": f"http://{host}:{machine.gateway_port}",
        "FOREBAY_AGENT_HOME": str(machine.agent_home),
        "FOREBAY_MODELS": str(machine.home / "models"),
    }
    if machine.host not in {"127.0.0.1", "::1", "localhost"}:  # the hosts of the default
        made["FOREBAY_HOSTS"] = f"localhost,127.0.0.1,[::1],{host},{socket.gethostname()}"
    if machine.embedded_valkey:
        url = "redis://:{}@{}:{}/0"
        made["FOREBAY_REDIS_URL"] = url.format(valkey_password, "127.0.0.1", machine.valkey_port)
        if not _is_loopback(machine.valkey_host):
            made["FOREBAY_NODE_BROKER_URL"] = url.format(valkey_password, host, machine.valkey_port)
        elif not machine.is_loopback:
            made["FOREBAY_NODE_BROKER_URL"] = ""  # other nodes cannot reach it: their reports carry the specs
    return {**made, **environ}


def require_free_ports(machine: Machine) -> None:
    """Refuse to start over another program, after giving the parts of a killed supervisor time to leave."""
    wanted = [
        ("FOREBAY_WEB_PORT", machine.host, machine.web_port),
        ("FOREBAY_GATEWAY_PORT", machine.host, machine.gateway_port),
    ]
    if machine.embedded_valkey:
        wanted.append(("FOREBAY_VALKEY_PORT", machine.valkey_host, machine.valkey_port))
    deadline = time.monotonic() + LEFTOVER_S
    for variable, host, port in wanted:
        while not _is_free(host, port):
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"Port {port} is taken{_holder(port)}.",
                    fix=f"end that program, or choose another port: {variable}=... make run",
                )
            time.sleep(0.2)


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StepFailed(f"{name}={text} is no port.", fix="give a number from 1 to 65535")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """The address of the interface that leads out. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """ " by python3 (pid 123)", where the system tells."""
    try:
        found = psutil.net_connections("tcp")
        pid = next((c.pid for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid), None)
        return f" by {psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except psutil.Error:
        return ""
