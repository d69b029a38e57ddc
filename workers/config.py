"""The agent's home folder: who this node is (agent.json), who holds the home (a lock), and its settings.

Everything in it is readable by its owner only: it holds the node's token and the engines' keys.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from workers.ports import parse_range
from workers.store.room import Limits

DEFAULT_HOME = ".forebay/agent"
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?) ?(MiB|GiB|TiB|)")
_UNITS = {"": 1, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class ConfigError(Exception):
    """The home or a setting is not as it must be; the message tells a person what to do."""


class HomeInUse(ConfigError):
    """Another agent holds this home."""


class Config(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What joining gave this node. `instance` is random per home; `host` ties the home to this host and folder."""

    url: str
    node: int
    name: str
    node_token: str
    instance: str
    address: str
    host: str
    broker_url: str = ""
    queue: str = ""
    period_s: float = 1.0
    bind: str = ""  # where engines listen; "" = at `address`

    def listen_host(self) -> str:
        """An address of this host's. A name is looked up by its clients, so engines then listen on all addresses;
        each asks for its own key."""
        if self.bind:
            return self.bind
        return self.address if _is_ip(self.address) or self.address == "localhost" else "0.0.0.0"  # noqa: S104


class Home:
    """The folder. At most one agent holds it, which the lock sees to."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.replicas, self.logs = self.path / "replicas", self.path / "logs"
        self.asleep = self.path / "asleep"  # records of engines that sleep
        self._lock: IO[str] | None = None

    def prepare(self) -> None:
        for folder in (self.path, self.replicas, self.asleep, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)

    def hold(self) -> None:
        """Raises HomeInUse. The kernel lets go of the lock when this process ends, however it ends."""
        self.prepare()
        file = (self.path / "agent.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise HomeInUse(f"another agent (pid {holder}) holds {self.path}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._lock = file

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self) -> Config:
        """Raises ConfigError if the node has not joined, or if this home was copied from elsewhere."""
        try:
            config = msgspec.json.decode((self.path / "agent.json").read_bytes(), type=Config)
        except FileNotFoundError:
            raise ConfigError(f"{self.path} holds no agent.json: join first (python -m workers join --help)") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{self.path / 'agent.json'} cannot be read: {error}") from error
        if config.host != host_mark(self.path):
            raise ConfigError(
                f"{self.path} was made on another host or in another folder. Two agents must not share an identity:"
                " join again here, with a new token"
            )
        return config

    def save(self, config: Config) -> None:
        write_private(self.path / "agent.json", msgspec.json.format(msgspec.json.encode(config), indent=2))


def write_private(path: Path, data: bytes) -> None:
    """All of it or nothing, readable by the owner only, on disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def host_mark(home: Path) -> str:
    """Differs on another host and in another folder, so that a copied home is recognised."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"forebay home {machine} {home.resolve()}".encode()).hexdigest()[:32]


def node_name(hostname: str) -> str:
    """The host's name as a node's name may be."""
    name = re.sub(r"[^a-z0-9.-]+", "-", hostname.lower()).strip("-.")[:63].strip("-.")
    return name or "node"


def own_address(server_host: str) -> str:
    """The address of this host from which `server_host` is reached. Nothing is sent to find out."""
    try:
        family, _, _, _, target = socket.getaddrinfo(server_host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"cannot tell this host's address towards {server_host}: {error}; give --address") from error


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    home: Home
    vllm: Path | None
    devices: str
    cpu_slots: int
    engine_ports: range
    side_ports: range
    metrics: tuple[str, int] | None = None  # where Prometheus may read the agent's figures
    fast_start: bool = True  # engines on CPU slots are forked from a process that has vLLM imported
    models: tuple[Path, ...] = ()  # folders of models
    limits: Limits = field(default_factory=Limits)  # of weights that are fetched
    sleep_cap_bytes: int | None = None  # of host memory, for engines that sleep; None: half of it
    sleep_rest_bytes: int | None = None  # most that one that sleeps may hold of a GPU

    @classmethod
    def read(cls, home: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError."""
        devices = environ.get("FOREBAY_DEVICES", "auto")
        if devices not in {"auto", "nvidia", "cpu"} and not re.fullmatch(r"simulated:\d{1,3}", devices):
            raise ConfigError(f"FOREBAY_DEVICES is {devices!r}; use auto, nvidia, cpu or simulated:N")
        slots = environ.get("FOREBAY_CPU_SLOTS", "2")
        if not slots.isdecimal():
            raise ConfigError(f"FOREBAY_CPU_SLOTS is {slots!r}; use a number")
        fast_start = environ.get("FOREBAY_FAST_START", "auto")
        if fast_start not in {"auto", "off"}:
            raise ConfigError(f"FOREBAY_FAST_START is {fast_start!r}; use auto or off")
        try:
            engine_ports = parse_range(environ.get("FOREBAY_ENGINE_PORTS", "18100-18199"))
            side_ports = parse_range(environ.get("FOREBAY_SIDE_PORTS", "18200-18299"))
        except ValueError as error:
            raise ConfigError(f"FOREBAY_ENGINE_PORTS, FOREBAY_SIDE_PORTS: {error}") from error
        return cls(
            home=Home(home or Path(environ.get("FOREBAY_AGENT_HOME", DEFAULT_HOME))),
            vllm=_vllm(environ),
            devices=devices,
            cpu_slots=int(slots),
            engine_ports=engine_ports,
            side_ports=side_ports,
            metrics=_address(environ.get("FOREBAY_AGENT_METRICS", "")),
            fast_start=fast_start == "auto",
            models=_folders(environ, "FOREBAY_MODELS"),
            limits=Limits(_bytes(environ, "FOREBAY_MODELS_CAP"), _bytes(environ, "FOREBAY_MODELS_FREE")),
            sleep_cap_bytes=_bytes(environ, "FOREBAY_SLEEP_CAP"),
            sleep_rest_bytes=_bytes(environ, "FOREBAY_SLEEP_REST"),
        )


def _address(text: str) -> tuple[str, int] | None:
    """Of "host:port"; an IPv6 host may stand in brackets."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"FOREBAY_AGENT_METRICS is {text!r}; use host:port, for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def _folders(environ: Mapping[str, str], name: str) -> tuple[Path, ...]:
    """Of "/a:/b"."""
    found = [part for part in environ.get(name, "").split(":") if part]
    if relative := [part for part in found if not part.startswith("/")]:
        raise ConfigError(f"{name} names {relative[0]!r}; use full paths, separated by colons")
    return tuple(map(Path, found))


def _bytes(environ: Mapping[str, str], name: str) -> int | None:
    """Of "500 GiB"; None where nothing is said."""
    if not (text := environ.get(name, "").strip()):
        return None
    if (match := _SIZE.fullmatch(text)) is None:
        raise ConfigError(f"{name} is {text!r}; use a number of bytes, MiB, GiB or TiB, for example 500GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def _vllm(environ: Mapping[str, str]) -> Path | None:
    found = environ.get("FOREBAY_VLLM") or shutil.which("vllm", path=environ.get("PATH"))
    return Path(found).absolute() if found else None


def _is_ip(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False
