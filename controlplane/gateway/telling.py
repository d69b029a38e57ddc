"""Tells the control plane that this gateway lives, what its own requests through engines came to, and which pooled
models are in use. A thread: neither requests nor trials wait for the database."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.fleet import pool_use, verified
from controlplane.fleet.services import advance_all
from controlplane.gateway.demand import Use

log = structlog.get_logger(__name__)
BEAT_S = 2.0
RETRY_S = 1.0
LOOK_S = 1.0  # between two looks at what is in use
HURRY_S = 0.1  # while a model waits for somebody to be done with a slot
ASK_S = 0.2  # at least so long between two times that this has it asked for again


@dataclass(frozen=True, slots=True)
class Finding:
    partition: int
    generation: int
    ok: bool
    message: str = ""


LOOK = Finding(0, 0, True)  # of nothing: to look at once


class Teller(threading.Thread):
    """`tell` is called on the event loop. While the database is away the last finding of each partition is kept."""

    def __init__(self, uses: Callable[[], Iterable[Use]], *, beat_s: float = BEAT_S) -> None:
        """`uses`: what changed since it was last asked."""
        super().__init__(name="gateway-telling", daemon=True)
        self.hurried: Callable[[], bool] = lambda: False  # whether a model waits for a slot
        self.idle_told: Callable[[], None] = lambda: None  # called then: one has nothing in flight, and that is written
        self._gateway = self._address = ""
        self._beat_s = beat_s
        self._new: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()
        self._untold: dict[int, Finding] = {}
        self._uses = uses
        self._unwritten: dict[str, Use] = {}
        self._beat_at = 0.0
        self._failing = self._begun = self._is_idle = False
        self._ask_at = 0.0

    def begin(self, gateway: str, address: str) -> None:
        """Start, as the gateway of this name."""
        self._gateway, self._address = gateway, address
        self.start()

    def tell(self, partition: int, generation: int, ok: bool, message: str = "") -> None:
        self._new.put(Finding(partition, generation, ok, message))

    def look(self) -> None:
        """A model waits for a slot: tell now who is done with one, not after the pause. For any thread."""
        self._new.put(LOOK)

    def run(self) -> None:
        while self._take(self._pause_s()):
            close_old_connections()
            self.flush()
        self.flush()
        self._leave()
        connection.close()

    def stop(self, wait_s: float = 2.0) -> None:
        self._new.put(None)
        self.join(wait_s)

    def flush(self) -> None:
        """Write what there is to tell, and a beat if one is due. A failure keeps it for the next time."""
        try:
            if not self._begun:
                pool_use.begin(self._gateway)
                self._begun = True
            is_news = False
            for finding in list(self._untold.values()):
                is_news |= verified.record(finding.partition, finding.generation, finding.ok, finding.message)
                del self._untold[finding.partition]
            if is_news:  # a change may be waiting for just this
                advance_all()
            self._write_uses()
            if time.monotonic() >= self._beat_at:
                verified.beat(self._gateway, self._address, timezone.now())
                self._beat_at = time.monotonic() + self._beat_s
        except DatabaseError as error:
            if not self._failing:
                log.error("the control plane cannot be told of engines; tried again", error=str(error))
            self._failing = True
            return
        self._failing = False

    def _write_uses(self) -> None:
        """What could not be written is kept, the newest of each."""
        self._unwritten.update({use[0]: use for use in self._uses()})
        if self._unwritten:
            pool_use.write(self._gateway, self._unwritten.values())
            self._is_idle |= any(not in_flight for _, in_flight, _ in self._unwritten.values())
            self._unwritten.clear()
        if not self.hurried():
            self._is_idle = False
        if self._is_idle and (now := time.monotonic()) >= self._ask_at:
            self._is_idle, self._ask_at = False, now + ASK_S
            self.idle_told()

    def _pause_s(self) -> float:
        look_s = HURRY_S if self.hurried() else LOOK_S
        return RETRY_S if self._failing else min(look_s, max(0.0, self._beat_at - time.monotonic()))

    def _take(self, wait_s: float) -> bool:
        """Gather what is new, waiting for the first of it; False at the end."""
        try:
            finding = self._new.get(timeout=wait_s) if wait_s else self._new.get_nowait()
            while finding is not None:
                if finding is not LOOK:
                    self._untold[finding.partition] = finding
                finding = self._new.get_nowait()
        except queue.Empty:
            return True
        return False

    def _leave(self) -> None:
        try:
            verified.ended(self._gateway)
            pool_use.begin(self._gateway)
        except DatabaseError:
            log.warning("the control plane was not told that this gateway ends")
