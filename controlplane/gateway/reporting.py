"""The moment that nodes are judged silent at. Pure, and by the times of reports alone: no clock of this process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Reporting:
    """What is known of the reports of all nodes together.

    When none comes from any node it is the reporting that is down, not all of the nodes: the newest report stays
    the reference. When reports come again, the first of them says nothing of the other nodes: `before`, the last
    report before the gap, stays it until reports have come for as long as a node may be silent.
    """

    newest: datetime | None = None
    before: datetime | None = None
    resumed: datetime | None = None  # the first report after the gap

    @property
    def reference(self) -> datetime | None:
        return self.before or self.newest

    def heard(self, newest: datetime | None, silent_after: timedelta) -> Reporting:
        """After another look, which found `newest` to be the newest report of any node."""
        if newest is None or self.newest is None or newest < self.newest:  # the node that sent it was removed
            return Reporting(newest)
        if newest - self.newest > silent_after:
            return Reporting(newest, self.before or self.newest, newest)
        if self.resumed is not None and newest - self.resumed < silent_after:
            return Reporting(newest, self.before, self.resumed)
        return Reporting(newest)
