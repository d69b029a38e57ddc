"""Sends the latest figures of many nodes to Valkey together: a round trip for each report would cost more than the rest
of taking it in. The same look asks which logs somebody wants."""

from __future__ import annotations

from controlplane.periodic import Periodic
from controlplane.telemetry import latest, logs, valkey
from controlplane.telemetry.latest import Latest

EVERY_S = 0.2


class Outbox:
    """`put` is called on the event loop. Of each node the newest waits; there is never more than one of each."""

    def __init__(self) -> None:
        self._waiting: dict[int, Latest] = {}
        self._thread = Periodic("telemetry-outbox", EVERY_S, self.flush, lambda: None)
        self.start, self.stop = self._thread.start, self._thread.stop

    @property
    def is_running(self) -> bool:
        return self._thread.is_running

    def put(self, figures: Latest) -> None:
        self._waiting[figures.node] = figures

    def flush(self) -> None:
        """While Valkey is away they wait, and are replaced by newer ones."""
        taken = self._take()
        try:
            latest.keep(*taken)
            logs.look_who_is_wanted()
        except valkey.Unreachable:
            for figures in taken:
                self._waiting.setdefault(figures.node, figures)

    def _take(self) -> list[Latest]:
        taken, self._waiting = self._waiting, {}
        return list(taken.values())
