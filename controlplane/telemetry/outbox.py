"""Sends the latest figures of many nodes to Valkey together: a round trip for each report would cost more than the rest
of taking it in. The same look asks which logs somebody wants."""

from __future__ import annotations

from collections.abc import Callable

from controlplane.periodic import Periodic
from controlplane.telemetry import latest, logs, valkey
from controlplane.telemetry.latest import Latest

EVERY_S = 0.2


class Outbox:
    """`pop` gives the newest figures of each node that was heard since the last call, by node."""

    def __init__(self, pop: Callable[[], dict[int, Latest]]) -> None:
        self._pop = pop
        self._kept: dict[int, Latest] = {}
        self._thread = Periodic("telemetry-outbox", EVERY_S, self.flush, lambda: None)
        self.start, self.stop = self._thread.start, self._thread.stop

    @property
    def is_running(self) -> bool:
        return self._thread.is_running

    def flush(self) -> None:
        """While Valkey is away the newest of each node waits."""
        taken = self._kept | self._pop()
        try:
            latest.keep(*taken.values())
            logs.look_who_is_wanted()
        except valkey.Unreachable:
            self._kept = taken
        else:
            self._kept = {}
