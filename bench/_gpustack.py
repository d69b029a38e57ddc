"""GPUStack 2.3 with as many workers as we have nodes, to be asked for the same list: in a network of its own, since it
binds every interface, on a PostgreSQL of its own. Needs root, and its program: `pip install gpustack==2.3.0`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests import postgres

API, DATABASE = 8891, 55432
PASSWORD = "Bench-2-Bench"
BASIC = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
GIB = 2**30
STARTS_WITHIN_S = 300.0
SETTLES_S = 20.0  # what it does once after its start is not what its list costs
CLUSTER = """
INSERT INTO clusters (name, provider, state, owner_principal_id, hashed_suffix, is_default)
SELECT 'bench', 'Docker', 'READY', min(id), 'bench', false FROM principals
"""
WORKERS = """
INSERT INTO workers (name, hostname, ip, labels, state, status, created_at, updated_at, port, unreachable,
    heartbeat_time, worker_uuid, cluster_id, provider, ifname, proxy_mode)
SELECT 'w' || n, 'w' || n, '10.0.0.1', '{{}}', 'READY', '{status}', now(), now(), 10150, false,
    now() + interval '1 day', 'u' || n, (SELECT min(id) FROM clusters), 'Docker', '', 'WORKER'
FROM generate_series(1, {count}) n
"""
OPTIONS = (
    "--gateway-mode", "disabled", "--disable-builtin-observability", "--disable-update-check", "--disable-metrics",
    "--port", "8890", "--api-port", str(API), "--bootstrap-password", PASSWORD,
)  # fmt: skip


class Gpustack:
    """Running between enter and exit."""

    def __init__(self, program: Path, home: Path, workers: int, gpus: int = 8) -> None:
        self._program, self._home, self._workers, self._gpus = program, home, workers, gpus
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Gpustack:
        self._home.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, count: int) -> dict[str, Any]:
        """The list of all workers, as its own page loads it."""
        url = f"http://127.0.0.1:{API}/v2/workers?perPage=500"
        pid = str(self._processes[-1].pid)
        found = json.loads(
            self._run(sys.executable, "-m", "bench._asking", url, str(count), pid, "Authorization", BASIC)
        )
        return {"what": "GPUStack's workers, all", **found}

    def _start(self) -> None:
        self._spawn("holder", "unshare", "-n", "sleep", "infinity")
        time.sleep(0.5)
        self._run("ip", "link", "set", "lo", "up")
        self._run("ip", "addr", "add", "10.9.8.6/32", "dev", "lo")  # it wants an address beside loopback
        self._start_database()
        self._spawn(
            "gpustack", *self._inside, str(self._program), "start", "--data-dir", str(self._home / "data"),
            "--cache-dir", str(self._home / "cache"), *OPTIONS,
            "--database-url", f"postgresql://forebay@127.0.0.1:{DATABASE}/gpustack",
        )  # fmt: skip
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline or self._processes[-1].poll() is not None:
                raise RuntimeError(f"GPUStack did not start: {self._log()}")
            time.sleep(1)
        self._seed()

    def _start_database(self) -> None:
        folder, user = self._home / "pg", postgres.unprivileged_user()
        folder.mkdir()
        self._home.chmod(0o755)
        self._run("chown", user, str(folder))
        programs = postgres.find_binaries()
        own = ("runuser", "-u", user, "--")
        self._run(
            *own, str(programs / "initdb"), "-D", str(folder / "data"), "-U", "forebay", "-A", "trust", "--no-sync"
        )
        options = ("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off")
        server = (str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(DATABASE), *options)
        self._spawn("postgres", *self._inside, *own, *server)
        for _ in range(100):
            if self._sql("postgres", "SELECT 1", check=False):
                break
            time.sleep(0.2)
        self._sql("postgres", "CREATE DATABASE gpustack")

    def _seed(self) -> None:
        """Workers as they would have reported themselves a moment ago."""
        status = json.dumps(_status(self._gpus)).replace("'", "''")
        self._sql("gpustack", CLUSTER)
        self._sql("gpustack", WORKERS.format(status=status, count=self._workers))
        there = self._sql("gpustack", "SELECT count(*) FROM workers").strip()
        if there != str(self._workers):
            raise RuntimeError(f"GPUStack has {there} workers instead of {self._workers}")
        time.sleep(SETTLES_S)

    def _answers(self) -> bool:
        text = self._run(
            "curl", "-s", "-m", "3", "-H", f"Authorization: {BASIC}", f"http://127.0.0.1:{API}/v2/workers", check=False
        )
        return '"items"' in text

    @property
    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self._processes[0].pid), "-n")

    def _spawn(self, name: str, *command: str) -> None:
        environ = {**os.environ, "HOME": str(self._home)}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would start twice as slowly each time
        with (self._home / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self._inside, *command], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def _sql(self, database: str, sql: str, *, check: bool = True) -> str:
        to = ("-h", "127.0.0.1", "-p", str(DATABASE), "-U", "forebay", "-v", "ON_ERROR_STOP=1")
        return self._run("psql", *to, "-tAc", sql, database, check=check)

    def _log(self) -> str:
        return (self._home / "gpustack.log").read_text(errors="replace")[-2000:]


def _status(gpus: int) -> dict[str, Any]:
    """In the words of its WorkerStatus."""
    return {
        "cpu": {"total": 96, "utilization_rate": 20.0},
        "memory": {"total": 1024 * GIB, "utilization_rate": 20.0, "used": 212 * GIB, "is_unified_memory": False},
        "swap": {"total": 0, "utilization_rate": 0.0, "used": 0},
        "filesystem": [
            {
                "name": "root",
                "mount_point": "/",
                "mount_from": "/dev/sda",
                "total": GIB,
                "used": 1,
                "free": 1,
                "available": 1,
            }
        ],
        "os": {"name": "Debian", "version": "12"},
        "kernel": {"name": "Linux", "release": "6.1", "version": "1", "architecture": "x86_64"},
        "uptime": {"uptime": 1000.0, "boot_time": "2026-01-01T00:00:00"},
        "gpu_devices": [
            {
                "vendor": "nvidia",
                "type": "cuda",
                "index": index,
                "name": "NVIDIA H100 80GB HBM3",
                "uuid": f"GPU-{index}",
                "driver_version": "570",
                "core": {"total": 132, "utilization_rate": 40.0 + index},
                "memory": {"total": 80 * GIB, "utilization_rate": 90.0, "used": 72 * GIB, "is_unified_memory": False},
                "temperature": 55.0,
                "power": 700.0,
                "power_used": 400.0,
            }
            for index in range(gpus)
        ],
    }
