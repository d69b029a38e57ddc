"""Engines of this home that nobody accounts for: what an agent that died, or a start that was given up, left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from workers import processes
from workers.book import Record
from workers.contract import Phase
from workers.sockets import Sockets

log = logging.getLogger(__name__)
SWEEP_S = 30.0  # how often they are looked for


class Strays:
    def __init__(self, instance: str, records: Callable[[], Iterable[Record]], sockets: Sockets | None = None) -> None:
        self._instance, self._records, self._sockets = instance, records, sockets
        self._swept_at: float | None = None
        self.gpus: frozenset[str] = frozenset()  # where some were at the last sweep, and may not be gone yet

    def is_due(self, now: float) -> bool:
        return self._swept_at is None or now - self._swept_at >= SWEEP_S or bool(self.gpus)

    def sweep(self, now: float) -> None:
        """Kill those that no record accounts for, by partition and generation, and remove what the ended left."""
        self._swept_at = now
        known = {record.marker for record in self._records() if record.replica.phase != Phase.EXITED}
        strays = [stray for stray in processes.marked(self._instance) if str(stray.marker) not in known]
        for stray in strays:
            log.warning("pid %d is a stray engine of generation %d: killed", stray.pid, stray.marker.generation)
        processes.kill([stray.pid for stray in strays])
        if self._sockets:
            self._sockets.sweep(known)
        self.gpus = frozenset(uuid for stray in strays for uuid in stray.gpus)
