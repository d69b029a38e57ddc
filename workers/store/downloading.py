"""The fetching program as the agent sees it: one process at the lowest priority, that ends when the agent does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from workers import processes
from workers.measuring import DROPPED

log = logging.getLogger(__name__)
PROGRAM = Path(__file__).parent / "hub.py"
NICE = 15
GONE_S = 5.0
REMOVE_S = 300.0  # what taking one revision out may take
MOST_LINE = 4096
NO_PYTHON = "no Python beside the vllm program on this node: set FOREBAY_VLLM to vllm's path"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class CannotFetch(Exception):
    """The message tells a person why."""


class Said(Struct, frozen=True):
    """A line of the program."""

    commit: str = ""
    total_bytes: int = 0
    left_bytes: int = 0
    bytes: int | None = None
    error: str = ""
    done: bool = False


class Download:
    """One run. What it said so far is kept by a thread that reads it."""

    def __init__(self, child: subprocess.Popen[bytes], errors: Path) -> None:
        self._child, self._errors = child, errors
        self.plan: Said | None = None
        self.bytes, self.went = 0, False
        self._error, self._done = "", False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def go(self) -> None:
        """After the plan: it may write to the disk."""
        self.went = True
        with contextlib.suppress(OSError):  # it ended meanwhile
            assert self._child.stdin is not None
            self._child.stdin.write(b"go\n")
            self._child.stdin.flush()

    def outcome(self) -> str | None:
        """None while it runs; "" when all is there; else why not."""
        if self._child.poll() is None:
            return None
        self._reader.join(GONE_S)
        self._close()
        if self._done and self._child.returncode == 0:
            return ""
        return self._error or ": ".join(
            filter(None, [processes.how_it_ended(self._child.returncode), last_line(self._errors)])
        )

    def wait(self, most_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(most_s)

    def kill(self) -> None:
        """What it has brought stays, and another goes on from there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(GONE_S)
        self._close()

    def _close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed under us
            while line := self._child.stdout.readline(MOST_LINE):
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError:
            return
        if said.commit:
            self.plan = said
            self.bytes = max(0, said.total_bytes - said.left_bytes)
        if said.bytes is not None:
            self.bytes = said.bytes
        self._error, self._done = said.error or self._error, said.done or self._done


class Hub:
    """`python`: the engine's interpreter, "" where there is none."""

    def __init__(
        self, folder: Path, cache: Path, python: Callable[[], str], environ: Mapping[str, str] = os.environ
    ) -> None:
        self._folder, self._cache, self._python, self._environ = folder, cache, python, environ

    def why_not(self) -> str:
        """Why nothing can be fetched on this node, "" where it can."""
        if name := next((name for name in _OFFLINE if is_on(self._environ.get(name, ""))), ""):
            return f"{name} is set on this node: nothing is fetched"
        return "" if self._python() else NO_PYTHON

    def fetch(self, source: str, revision: str) -> Download:
        """Raises CannotFetch, OSError."""
        child = self._start(source, f"--revision={revision}")
        log.info("fetching %s: pid %d", source, child.pid)
        return Download(child, self._errors)

    def remove(self, source: str, commit: str) -> None:
        """Waits until it is gone. Raises CannotFetch, OSError."""
        log.info("removing %s at %s, to make room", source, commit)
        run = Download(self._start(source, f"--remove={commit}"), self._errors)
        try:
            run.wait(REMOVE_S)
        finally:
            run.kill()
        if why := run.outcome():
            raise CannotFetch(f"{source} could not be removed to make room: {why}")

    @property
    def _errors(self) -> Path:
        return self._folder / "fetch.err"

    def _start(self, source: str, *more: str) -> subprocess.Popen[bytes]:
        if why := self.why_not():
            raise CannotFetch(why)
        env = {name: value for name, value in self._environ.items() if not name.startswith(DROPPED)}
        env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        argv = [self._python(), "-I", str(PROGRAM), "--cache", str(self._cache), *more, "--", source]
        errors = os.open(self._errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(errors, "wb") as err:
            child = subprocess.Popen(  # noqa: S603 - our own program, no shell
                argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(OSError, psutil.Error):  # it ended at once, or this is not ours to say
            os.setpriority(os.PRIO_PROCESS, child.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
            psutil.Process(child.pid).ionice(psutil.IOPRIO_CLASS_IDLE)
        return child


def is_on(text: str) -> bool:
    """As the hub's client reads its switches."""
    return text.upper() in {"1", "ON", "YES", "TRUE"}


def last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            lines = file.read(MOST_LINE * 16).strip().splitlines()
    except OSError:
        return ""
    return lines[-1].decode(errors="replace")[:200] if lines else ""
