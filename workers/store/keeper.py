"""Looks for weights on this node, seldom and in a thread of its own: disks may be slow, network folders may hang."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from workers.config import write_private
from workers.contract import NodeSpec
from workers.store.places import Places, key
from workers.view import View
from workers.weights import WeightsReport

log = logging.getLogger(__name__)
EVERY_S = 30.0
SOONEST_S = 2.0
USED_EVERY_S = 600.0  # how often it is written that an engine still uses them
MOST_USED = 4096


class Keeper:
    """`spec` and `view`: what is to run here, and what runs."""

    def __init__(
        self, places: Places, file: Path, *, spec: Callable[[], NodeSpec | None], view: Callable[[], View]
    ) -> None:
        self._places, self._file, self._spec, self._view = places, file, spec, view
        self._used = _read(file)
        self.checked: Callable[[], Mapping[tuple[str, str], float]] = dict  # by source and commit, when that was
        self._wake, self._done = threading.Event(), threading.Event()
        self.latest: tuple[str, WeightsReport | None] = "", None  # with its mark; it has not looked yet
        self.on_change: Callable[[], None] = lambda: None

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self.look(time.time())
            except Exception:
                log.exception("looking for weights failed; the next look starts afresh")
            self._wake.wait(EVERY_S)
            self._wake.clear()
            self._done.wait(SOONEST_S)

    def soon(self) -> None:
        """Something started, ended, or is wanted."""
        self._wake.set()

    def stop(self) -> None:
        self._done.set()
        self._wake.set()

    @property
    def used(self) -> Mapping[str, float]:
        """When an engine was last seen to use them, by source and revision."""
        return self._used

    def look(self, now: float) -> None:
        self._note_use(now)
        spec = self._spec()
        also = {replica.model for replica in spec.replicas} if spec else set()
        latest = self._places.look(sorted(also), self._used, self.checked())
        if latest != self.latest[1]:
            self.latest = latest.mark(), latest
            self.on_change()

    def _note_use(self, now: float) -> None:
        live = {key(r.replica.spec.model, r.replica.spec.revision) for r in self._view().records if r.is_live}
        due = {one for one in live if not 0 <= now - self._used.get(one, 0.0) < USED_EVERY_S}
        if not due:
            return
        used = self._used | dict.fromkeys(due, float(round(now)))
        newest = sorted(used.items(), key=lambda item: -item[1])[:MOST_USED]
        self._used = dict(newest)
        write_private(self._file, msgspec.json.encode(self._used))


def _read(path: Path) -> dict[str, float]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.error("%s cannot be read; when weights were used last is forgotten: %s", path, error)
        return {}
