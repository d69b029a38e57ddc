"""The agent's end of the nursery, a process with vLLM imported that forks engines where a plain start imports it anew.

The nursery ends when the agent does; engines it forked live on, and are found by pid and marker like all others.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.engines.traces import ENV as TRACES_ENV
from workers.engines.vllm_version import interpreter
from workers.processes import Process, boot_id, born

log = logging.getLogger(__name__)
SCRIPT = Path(__file__).parent / "engines" / "cpu" / "nursery.py"
ENTRY = b"vllm.entrypoints.cli.main"  # in the script that pip makes; any other program is started as it is
IMPORT_S = 120.0  # how long its first import may hold up a start
ANSWER_S = 10.0
ENDED_S = 0.5
ROOM, ROOM_BYTES = "FOREBAY_ROOM", 32 * 1024  # for what an engine's environment has more than the nursery's
ARGS_BYTES = 2048
# Read when an engine starts, not when vLLM is imported.
LATE = frozenset(
    {
        "VLLM_API_KEY",
        "VLLM_HOST_IP",
        "VLLM_RPC_BASE_PATH",
        "TMPDIR",
        "VLLM_NIXL_SIDE_CHANNEL_HOST",
        "VLLM_NIXL_SIDE_CHANNEL_PORT",
        "OMP_NUM_THREADS",
        *TRACES_ENV,
    }
)
OWN = "FOREBAY_"

Stamp = tuple[str, int, int]


class NoFork(Exception):
    """This engine must be started plainly; the message says why."""


class Nursery:
    """At most one process at a time. `env` is what vLLM is imported under, and so what its engines must agree with."""

    def __init__(
        self, program: Path, env: Mapping[str, str], log_path: Path, *, nice: int = 0, answer_s: float = ANSWER_S
    ) -> None:
        self._program, self._env, self._log, self._nice = program, dict(env), log_path, nice
        self._answer_s, self._lock = answer_s, threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._stamp: Stamp | None = None
        self._hello: dict[str, Any] | None = None
        self._launched = 0.0
        self._first = True
        self._why = "the nursery was not started"
        self._ended: dict[int, int] = {}
        self._forked: set[int] = set()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Begin to import vLLM, unless that is under way or done, or the program failed at it before."""
        with self._lock:
            self._launch()

    def is_importing(self) -> bool:
        """Whether a start gains by waiting: the first import is under way, and has not taken too long."""
        with self._lock:
            self._read(0.0)
            waiting = self._channel is not None and self._hello is None and self._first
            return waiting and time.monotonic() - self._launched < IMPORT_S

    def fork(self, argv: Sequence[str], env: Mapping[str, str], log_path: Path, version: str = "") -> Process:
        """An engine in a session of its own, its output appended to `log_path`. Raises NoFork, and then none runs."""
        with self._lock:
            self._read(0.0)
            self._check(argv, env, version)
            return self._fork(argv, env, log_path)

    def exit_code(self, pid: int) -> int | None:
        """Of an engine it forked (negative: signal); None while that runs, or if nobody can tell any more."""
        with self._lock:
            if pid in self._forked and pid not in self._ended and not born(pid):
                deadline = time.monotonic() + ENDED_S
                while pid not in self._ended and self._channel and (left := deadline - time.monotonic()) > 0:
                    self._read(left)
            return self._ended.get(pid)

    def forget(self, pid: int) -> None:
        with self._lock:
            self._forked.discard(pid)
            self._ended.pop(pid, None)

    def close(self) -> None:
        with self._lock:
            self._close("the agent ends")

    # --- with the lock held ------------------------------------------------------------------------------

    def _launch(self) -> None:
        stamp = _stamp(self._program)
        if self._channel is not None or stamp is None or (stamp == self._stamp and self._hello is None):
            return
        self._stamp, self._hello = stamp, None
        python = interpreter(self._program)
        if not python or not _is_stock(self._program):
            self._why = f"{self._program} is not the script that vLLM installs"
            return
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                self._process = self._popen(python, its)
            except OSError as error:
                ours.close()
                self._why = f"the nursery cannot be started: {error}"
                return
        self._channel, self._launched, self._why = ours, time.monotonic(), "the nursery is still importing vLLM"
        log.info("nursery: pid %d imports vLLM", self._process.pid)

    def _popen(self, python: str, channel: socket.socket) -> subprocess.Popen[bytes]:
        size = ROOM_BYTES + sum(len(name) + len(value) for name, value in self._env.items())
        fd = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own script, in the engine's Python
                [python, str(SCRIPT), str(self._program), str(channel.fileno()), " " * ARGS_BYTES],
                env={**self._env, ROOM: "." * size},
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=subprocess.STDOUT,
                cwd="/",
                pass_fds=[channel.fileno()],
                start_new_session=True,
            )
        finally:
            os.close(fd)
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + self._nice)
        return process

    def _check(self, argv: Sequence[str], env: Mapping[str, str], version: str) -> None:
        if self._channel is not None and self._stamp != _stamp(self._program):
            self._close(f"{self._program} changed since the nursery imported it")
        if self._channel is None or self._hello is None:
            why = self._why
            self._launch()  # for the next one
            raise NoFork(why)
        theirs = self._hello.get("version")
        if version and theirs != version:
            raise NoFork(f"the nursery holds vLLM {theirs}, and the engine is {version}")
        if argv[0] != str(self._program):
            raise NoFork(f"the nursery is of {self._program}")
        if other := _differing(self._env, env):
            raise NoFork(f"the nursery imported vLLM under another {other}")

    def _fork(self, argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> Process:
        """The engine waits for a byte through a pipe. When none can come any more, for want of an answer or of an
        agent, it ends: no engine runs that nobody knows of."""
        assert self._channel is not None
        request = json.dumps({"argv": list(argv[1:]), "env": dict(env)}).encode()
        waits, go = os.pipe2(os.O_CLOEXEC)
        out = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._channel.settimeout(self._answer_s)
            socket.send_fds(self._channel, [request], [out, waits])
            reply = self._reply()
            process = Process(reply["pid"], born(reply["pid"]), boot_id())
            self._forked.add(process.pid)
            self._ended.pop(process.pid, None)
            os.write(go, b"1")
            return process
        except OSError as error:
            self._close(f"the nursery failed to fork: {error}")
            raise NoFork(self._why) from error
        finally:
            for fd in (waits, go, out):
                os.close(fd)

    def _reply(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._answer_s
        while self._channel is not None and (left := deadline - time.monotonic()) > 0:
            for message in self._read(left):
                if "pid" in message:
                    return message
                if "error" in message:
                    raise OSError(message["error"])
        raise TimeoutError(f"no answer in {self._answer_s:g} s" if self._channel else self._why)

    def _read(self, wait_s: float) -> list[dict[str, Any]]:
        """What it has said; waits for the first word at most `wait_s`."""
        found: list[dict[str, Any]] = []
        while self._channel is not None:
            if not select.select([self._channel], [], [], 0.0 if found else wait_s)[0]:
                break
            try:
                data = self._channel.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._close(f"the nursery ended: {_last_line(self._log)}")
                break
            message = json.loads(data)
            self._note(message)
            found.append(message)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            self._ended[message["ended"]] = message["code"]
        elif "ready" in message:
            self._first = False
            if message["threads"] > 1:  # a fork takes only the calling thread along, and locks as they are
                self._close(f"vLLM has {message['threads']} threads once it is imported")
                return
            self._hello = message
            log.info("nursery: vLLM %s is imported, after %.1f s", message["version"], message["import_s"])

    def _close(self, why: str) -> None:
        self._why = why
        if self._channel is None or self._process is None:
            return
        log.info("nursery: ends: %s", why)
        self._channel.close()
        self._channel = None
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the nursery alone: its engines have sessions of their own
            self._process.wait()
        self._process = None
        self._first = False


def _differing(mine: Mapping[str, str], its: Mapping[str, str]) -> str:
    """The first variable that vLLM may have read in other words when it was imported."""
    names = sorted(name for name in {*mine, *its} - LATE if not name.startswith(OWN))
    return next((name for name in names if mine.get(name) != its.get(name)), "")


def _stamp(program: Path) -> Stamp | None:
    try:
        real = program.resolve()
        stat = real.stat()
    except OSError:
        return None
    return str(real), stat.st_mtime_ns, stat.st_size


def _is_stock(program: Path) -> bool:
    try:
        return ENTRY in program.read_bytes()[:4096]
    except OSError:
        return False


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "it said nothing"
