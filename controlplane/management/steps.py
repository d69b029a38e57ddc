"""Tells a person what is being done, for how long, and what failed. Standard library only: it runs before installs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

SPIN = "|/-\\"
PLAIN_EVERY_S = 15.0  # without a terminal: one line about a long step this often
LOG_LINES = 15


class StepFailed(Exception):
    """A step that could not be done: what happened, what to do, and the log that tells more."""

    def __init__(self, message: str, *, fix: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.log = log


class Step:
    """One line on the screen while it runs; `note` says what it is at."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.text = ""
        self.started = time.monotonic()

    def note(self, text: str) -> None:
        self.text = text

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


class Screen:
    """Where the steps are shown: a live line on a terminal, plain lines elsewhere."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._live = out.isatty()
        self._lock = threading.Lock()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        step = Step(title)
        over = threading.Event()
        painter = threading.Thread(target=self._paint, args=(step, over), daemon=True)
        painter.start()
        try:
            yield step
        except BaseException as error:
            mark = "failed" if isinstance(error, Exception) else "stopped"
            raise
        else:
            mark = "done"
        finally:
            over.set()
            painter.join()
            note = f"  {step.text}" if step.text else ""
            self._line(f"  {mark:<8}{step.elapsed:>6.1f} s  {title}{note}")

    def say(self, text: str = "") -> None:
        self._line(text)

    def failed(self, error: StepFailed) -> None:
        """What failed, the last log lines, and what to do."""
        self._line(f"\n{error.message}")
        if error.log and (lines := tail(error.log)):
            self._line(f"\nLast lines of {error.log}:")
            for line in lines:
                self._line(f"    {line}")
        if error.fix:
            self._line(f"\nWhat to do: {error.fix}")

    def _line(self, text: str) -> None:
        with self._lock:
            self._out.write(("\r\x1b[K" if self._live else "") + text + "\n")
            self._out.flush()

    def _paint(self, step: Step, over: threading.Event) -> None:
        if not self._live:
            while not over.wait(PLAIN_EVERY_S):
                self._line(f"  ...     {step.elapsed:>6.1f} s  {step.title}  {step.text}".rstrip())
            return
        turn = 0
        while not over.wait(0.1):
            turn += 1
            line = f"  {SPIN[turn // 2 % 4]}       {step.elapsed:>6.1f} s  {step.title}  {step.text}".rstrip()
            with self._lock:
                self._out.write(f"\r\x1b[K{line[: _width()]}")
                self._out.flush()


def tail(path: Path, lines: int = LOG_LINES) -> list[str]:
    """The last lines of a log file that may be large or missing."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns - 1
