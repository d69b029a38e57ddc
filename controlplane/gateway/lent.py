"""What is in flight in slots that the pool lends to dedicated deployments: they are taken back by it."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from controlplane.gateway.demand import Use


class Lent:
    """Requests by deployment. Touched by two threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: Counter[str] = Counter()
        self._changed: dict[str, float] = {}  # since `uses` was last called, and when (unix s)

    def begin(self, deployment: str, now: float) -> None:
        with self._lock:
            self._running[deployment] += 1
            self._changed[deployment] = now

    def end(self, deployment: str, now: float) -> None:
        with self._lock:
            self._running[deployment] -= 1
            if not self._running[deployment]:
                del self._running[deployment]
            self._changed[deployment] = now

    def uses(self) -> list[Use]:
        """Of deployments where something came or ended since the last call."""
        with self._lock:
            changed, self._changed = self._changed, {}
            return [(name, self._running[name], at) for name, at in changed.items()]
