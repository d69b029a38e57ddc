"""Reads the gateway's table anew, every second and when something changed. The last good one serves on when the
database does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.utils import timezone

from controlplane.fleet import selectors
from controlplane.gateway.reporting import Reporting
from controlplane.gateway.table import Known, Table, known_as, read, reporting_now, state

log = structlog.get_logger(__name__)


class Watch(threading.Thread):
    """Keeps `table` at most `period_s` old while the database answers, and reads it at once when a look at what
    changes with every flip, each `glance_s`, finds something new: each `hurry_s` while `hurried` says that requests
    wait for an engine. `listener` gets each table, in this thread."""

    def __init__(
        self,
        period_s: float = 1.0,
        glance_s: float = 0.1,
        hurry_s: float = 0.03,
        *,
        reader: Callable[[], Table] | None = None,
        glance: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(name="gateway-table", daemon=True)
        self.table = Table()
        self.failing = False
        self.looked = threading.Event()  # at least once
        self.listener: Callable[[Table], None] | None = None
        self.hurried: Callable[[], bool] = lambda: False
        self._period_s, self._glance_s, self._hurry_s = period_s, glance_s, hurry_s
        self._reader, self._glance = reader or self._read, glance or selectors.routing_mark
        self._mark: object = None
        self._reporting = Reporting()
        self._state: object = None  # of the database, that `table` was made of
        self._known: Sequence[Known] = ()  # engines come and go, deployments seldom change
        self._known_of: object = None  # the state that they were read in
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            close_old_connections()
            self.look()
            self.looked.set()
            self._wait()
        connection.close()

    def look(self) -> None:
        """Read once; on failure keep what is there."""
        try:
            self.table = self._reader()
        except DatabaseError as error:
            if not self.failing:
                log.error("the table cannot be read; the last one serves on", error=str(error))
            self.failing = True
            return
        except Exception:
            log.exception("the table cannot be read; the last one serves on")
            self.failing = True
            return
        if self.failing:
            log.info("the table is read again")
        self.failing = False
        if self.listener is not None:
            self.listener(self.table)

    def stop(self) -> None:
        self._stop_asked.set()

    def _wait(self) -> None:
        """Until the next look is due, or something has changed. What changed during the last one differs as well."""
        until = time.monotonic() + self._period_s
        while not self._stop_asked.wait(max(0.0, min(self._pause_s(), until - time.monotonic()))):
            if time.monotonic() >= until:
                return
            before, self._mark = self._mark, self._glanced()
            if self._mark != before:
                return

    def _pause_s(self) -> float:
        return self._hurry_s if self.hurried() else self._glance_s

    def _glanced(self) -> object:
        try:
            return self._glance()
        except DatabaseError:
            return self._mark  # a look will tell

    def _read(self) -> Table:
        """The table anew if anything in it changed, else the one before."""
        now = timezone.now()
        self._reporting = reporting_now(self._reporting)
        found = state(now, self._reporting)  # before the table: what changes in between differs the next time
        if found == self._state:
            return replace(self.table, read_at=time.monotonic())
        (_, deployments), *_ = found
        if deployments != self._known_of:
            self._known, self._known_of = known_as(), deployments
        table = read(now, self._reporting, self._known)
        self._state = found
        return table
