"""Keeps the parts of one machine running: starts them, tells when one ends, starts it again with a backoff.

Each part gets a session of its own (a Ctrl-C at the terminal is ours to handle) and a tether (a part does not
outlive a supervisor that was killed). Engines are the agent's: no part here is one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from controlplane import tether
from controlplane.management.steps import Step, StepFailed, tail

LOOK_EVERY_S = 0.2
LONGEST_BACKOFF_S = 30.0
STEADY_S = 60.0  # up this long: the next end is a new trouble, not the old one
LOG_BYTES = 10_000_000
LOG_LOOK_S = 60.0


@dataclass
class Part:
    """One program of ours. `grace_s`: how long it may take to end when asked. `final`: exit codes by which it says that
    starting it again would not help."""

    name: str
    command: list[str]
    log: Path
    grace_s: float = 10.0
    final: frozenset[int] = frozenset()
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False
    started: float = 0.0
    failures: int = 0
    starts: int = 0
    again_at: float | None = field(default=None)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    def __init__(self, say: Callable[[str], None]) -> None:
        self.parts: list[Part] = []
        self.hurry = False  # end everything now
        self._say = say
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def start(self, part: Part) -> None:
        """Start and keep running. Must be called from a thread that stays: the tether is tied to it."""
        with self._lock:
            part.wanted = True
            self._spawn(part)
            self.parts.append(part)

    def wait_ready(self, part: Part, check: Callable[[], bool], step: Step, *, within_s: float = 60.0) -> None:
        """Wait until `check` holds; a part that ends meanwhile has failed."""
        deadline = time.monotonic() + within_s
        first = part.starts
        while not check():
            if part.starts != first or not part.is_running:
                raise StepFailed(f"{part.name} ended while starting.", fix="read its log above", log=part.log)
            if time.monotonic() > deadline:
                raise StepFailed(f"{part.name} did not answer within {within_s:.0f} s.", log=part.log)
            time.sleep(0.05)
        step.note("")

    def stop(self, part: Part) -> None:
        """Ask it to end; after its grace, or in a hurry, kill it and what it started."""
        with self._lock:
            part.wanted = False
        process = part.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + part.grace_s
        while process.poll() is None and time.monotonic() < deadline and not self.hurry:
            time.sleep(0.05)
        _kill_session(process)
        process.wait()

    def stop_all(self) -> None:
        for part in reversed(self.parts):
            self.stop(part)
        self._over.set()
        self._thread.join()

    def _spawn(self, part: Part) -> None:
        part.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        tethered = [sys.executable, "-I", "-S", str(tether.__file__), str(os.getpid()), *part.command]
        with part.log.open("ab") as out:
            part.process = subprocess.Popen(
                tethered, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        part.started = time.monotonic()
        part.starts += 1
        part.again_at = None

    def _watch(self) -> None:
        log_look = time.monotonic() + LOG_LOOK_S
        while not self._over.wait(LOOK_EVERY_S):
            with self._lock:
                for part in self.parts:
                    self._look_after(part)
            if time.monotonic() > log_look:
                log_look = time.monotonic() + LOG_LOOK_S
                for part in self.parts:
                    rotate(part.log)

    def _look_after(self, part: Part) -> None:
        if not part.wanted or part.is_running:
            return
        now = time.monotonic()
        if part.process and part.process.returncode in part.final:
            part.wanted = False
            self._tell_end(part, "it will not be started again")
        elif part.again_at is None:
            part.failures = 1 if now - part.started > STEADY_S else part.failures + 1
            wait = min(LONGEST_BACKOFF_S, 2.0 ** (part.failures - 1))
            part.again_at = now + wait
            self._tell_end(part, f"starting it again in {wait:.0f} s")
        elif now >= part.again_at:
            self._spawn(part)
            self._say(f"  {part.name} started again (pid {part.pid})")

    def _tell_end(self, part: Part, then: str) -> None:
        code = part.process.returncode if part.process else None
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        self._say(f"  {part.name} ended ({how}); {then}. Last lines of {part.log}:")
        for line in tail(part.log, 5):
            self._say(f"      {line}")


def rotate(log: Path) -> None:
    """Keep one older copy. Copied and emptied, not renamed: the program keeps writing to the same file."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended, and everything it started
