"""Whom one request does not go to: engines that failed it, and those whose door is shut just now."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.gateway.table import Engine, Process, Table

DOOR_S = 2.5  # an engine that shut its door lets requests in again after 2 s, if it has not gone
SOON_S = 0.05  # until a request that only met shut doors looks again, at first; doubled with each


class Avoided:
    """As processes: another engine that comes into the slot of one of them is as good as any."""

    def __init__(self) -> None:
        self._failed: set[Process] = set()
        self._shut: set[Process] = set()
        self._met: dict[Process, float] = {}  # when its door was first found shut
        self._waits = 0

    def fail(self, *engines: Engine) -> None:
        """Not to be tried again for this request."""
        self._failed.update(engine.process for engine in engines)

    def shut(self, engine: Engine, now: float) -> bool:
        """It lets nobody in for now: not to be asked again before the request has waited. False where it has said so
        for longer than any door stays shut: then it has failed like any other that does not serve."""
        if now - self._met.setdefault(engine.process, now) > DOOR_S:
            self._failed.add(engine.process)
            return False
        self._shut.add(engine.process)
        return True

    @property
    def is_at_door(self) -> bool:
        """Whether somebody would serve but for a shut door."""
        return bool(self._shut)

    def ids(self, table: Table) -> Collection[int]:
        """Which of the table's engines these are."""
        if not self._failed and not self._shut:
            return ()
        return {process[0] for process in self._failed | self._shut if _is_in(process, table)}

    def pause_s(self, most_s: float) -> float:
        """How long to wait for an engine: shorter at first where a door may open again or a new table may come."""
        return min(most_s, SOON_S * 2.0 ** min(self._waits, 16)) if self._shut else most_s

    def waited(self, table: Table) -> None:
        """The request has waited: doors may be open again, and an engine that left and comes back has been started
        anew."""
        self._waits += bool(self._shut)
        self._shut.clear()
        self._failed = {process for process in self._failed if _is_in(process, table)}


def _is_in(process: Process, table: Table) -> bool:
    engine = table.engines.get(process[0])
    return engine is not None and engine.process == process
