"""A PostgreSQL cluster of the tests' own: made in a temporary folder, reached by a socket there, gone after."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg


def start() -> Cluster:
    binaries = find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="forebay-pg-"))
    cluster = Cluster(binaries=binaries, folder=folder, user=unprivileged_user())
    if cluster.user:
        shutil.chown(folder, cluster.user)
    cluster.run("initdb", "-D", str(folder / "data"), "-U", "forebay", "-A", "trust", "--no-sync", "-E", "UTF8")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
    cluster.run("pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "server.log"), "-o", options, "start")
    return cluster


@contextmanager
def new_database(entry: Mapping[str, Any]) -> Iterator[str]:
    """An empty one beside that of Django's `entry`, for processes that a test starts; gives its address."""
    name, user, host = f"forebay_{secrets.token_hex(4)}", entry["USER"], entry["HOST"]
    with psycopg.connect(dbname="postgres", user=user, host=host, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://{user}@/{name}?host={host}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def find_binaries() -> Path:
    """The folder of initdb: on the PATH, or the newest of Debian's."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise FileNotFoundError("--postgres needs PostgreSQL's server programs (on Debian: apt install postgresql)")
    return versions[-1].parent


def unprivileged_user() -> str:
    """PostgreSQL refuses to run as root: then as postgres, else nobody; "" when we are not root."""
    if os.geteuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass(frozen=True)
class Cluster:
    binaries: Path
    folder: Path
    user: str

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        if self.user:
            command = ["runuser", "-u", self.user, "--", *command]
        with (self.folder / "log").open("a") as log:  # a pipe would be held open by the server that pg_ctl leaves
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {self.log()}")

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*log")))

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def django_database(self) -> dict[str, object]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "forebay",
            "HOST": str(self.folder),
            "TEST": {"NAME": "forebay_test"},
        }
