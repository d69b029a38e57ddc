"""What is asked of the pool, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controlplane.fleet.models import Activation


class State(StrEnum):
    READY = "ready"
    STARTING = "starting"
    WAITING = "waiting"  # for a slot
    FAILED = "failed"
    ABSENT = "absent"  # no deployment of that name that the pool would start


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one is. `expected_s`: until its engine should be there, or until the next try where it failed; None: not
    known."""

    state: State
    expected_s: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """`waiters`: requests that wait for it; without any nothing is kept of an ask that comes to nothing. Ahead of
    requests nobody is made to leave. Of a dedicated deployment the cause is overflow, whatever is said here. `why`, for
    people."""

    waiters: int = 1
    cause: Activation.Cause = Activation.Cause.REQUEST
    why: str = ""

    def because(self, reason: str) -> str:
        """With why these slots, or why none."""
        return f"{self.why}; {reason}" if self.why else reason
