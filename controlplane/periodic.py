"""A thread of the web process that does one thing again and again, and once more at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Periodic:
    """`look` runs at the start, every `every_s` seconds and at the end, always on the same thread; `close` after it. It
    catches its own errors: one that comes through ends the thread. May be started again once stopped."""

    def __init__(self, name: str, every_s: float, look: Callable[[], None], close: Callable[[], None]) -> None:
        self._name, self._every_s, self._look, self._close = name, every_s, look, close
        self._stop_asked = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        if self._thread is None:
            self._stop_asked.clear()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Waits 10 s at most."""
        if self._thread is not None:
            self._stop_asked.set()
            self._thread.join(timeout=10)
            self._thread = None

    def _run(self) -> None:
        try:
            self._look()
            while not self._stop_asked.wait(self._every_s):
                self._look()
            self._look()
        finally:
            self._close()
