"""Sends the latest figures of many nodes to Valkey together: a round trip for each report would cost more than the rest
of taking it in. The same look asks which logs somebody wants."""

from __future__ import annotations

import threading

from controlplane.telemetry import latest, logs, valkey
from controlplane.telemetry.latest import Latest

EVERY_S = 0.2


class Outbox(threading.Thread):
    """`put` is called on the event loop. Of each node the newest waits; there is never more than one of each."""

    def __init__(self) -> None:
        super().__init__(name="telemetry-outbox", daemon=True)
        self._waiting: dict[int, Latest] = {}
        self._stop_asked = threading.Event()

    def put(self, figures: Latest) -> None:
        self._waiting[figures.node] = figures

    def run(self) -> None:
        while not self._stop_asked.wait(EVERY_S):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """While Valkey is away they wait, and are replaced by newer ones."""
        taken = self._take()
        try:
            latest.keep(*taken)
            logs.look_who_is_wanted()
        except valkey.Unreachable:
            for figures in taken:
                self._waiting.setdefault(figures.node, figures)

    def stop(self) -> None:
        self._stop_asked.set()
        if self.is_alive():
            self.join(timeout=5)

    def _take(self) -> list[Latest]:
        taken, self._waiting = self._waiting, {}
        return list(taken.values())
