"""What was asked of each deployment, minute by minute: the planner's history. Touched by two threads."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

MOST = 20_000  # minutes kept while the database is away
LEAP_S = 600.0  # `take` comes every few seconds: more than this is a clock that was set, not time that passed


@dataclass(slots=True)
class Minute:
    arrivals: int = 0
    active_s: float = 0.0
    peak_in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: int = 0

    def add(self, other: Minute) -> None:
        self.arrivals += other.arrivals
        self.active_s += other.active_s
        self.peak_in_flight = max(self.peak_in_flight, other.peak_in_flight)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.errors += other.errors


@dataclass(slots=True)
class _Running:
    count: int = 0
    since: float = 0.0  # unix, up to when active seconds are counted


Use = tuple[str, int, float]  # deployment, requests in flight, unix seconds of the last one's coming or end


Minutes = dict[tuple[str, int], Minute]  # by deployment and minute (unix s)


class Demand:
    """Counts in memory; `take` hands over what has gathered. Times are unix seconds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._minutes: Minutes = {}
        self._running: dict[str, _Running] = {}
        self._changed: dict[str, float] = {}  # since `uses` was last called, and when

    def begin(self, deployment: str, now: float) -> None:
        with self._lock:
            running = self._running.setdefault(deployment, _Running(0, now))
            self._settle(deployment, running, now)
            running.count += 1
            self._changed[deployment] = now
            minute = self._minute(deployment, now)
            minute.arrivals += 1
            minute.peak_in_flight = max(minute.peak_in_flight, running.count)

    def end(self, deployment: str, now: float, *, prompt: int, completion: int, failed: bool) -> None:
        with self._lock:
            running = self._running[deployment]
            self._settle(deployment, running, now)
            running.count -= 1
            self._changed[deployment] = now
            if not running.count:
                del self._running[deployment]
            minute = self._minute(deployment, now)
            minute.prompt_tokens += prompt
            minute.completion_tokens += completion
            minute.errors += failed

    def uses(self) -> list[Use]:
        """Of deployments that were asked for, or done with a request, since the last call."""
        with self._lock:
            changed, self._changed = self._changed, {}
            counts = {name: self._running[name].count if name in self._running else 0 for name in changed}
        return [(name, counts[name], at) for name, at in changed.items()]

    def take(self, now: float) -> Minutes:
        """Everything up to now; afterwards counting begins anew."""
        with self._lock:
            for deployment, running in self._running.items():
                self._settle(deployment, running, now)
                minute = self._minute(deployment, now)
                minute.peak_in_flight = max(minute.peak_in_flight, running.count)
            taken, self._minutes = self._minutes, {}
        return taken

    def give_back(self, minutes: Minutes) -> None:
        """What could not be written, to be taken again; the oldest go when it is too much."""
        with self._lock:
            for key, minute in minutes.items():
                self._minutes.setdefault(key, Minute()).add(minute)
            excess = len(self._minutes) - MOST
            for key in sorted(self._minutes, key=lambda key: key[1])[: max(0, excess)]:
                del self._minutes[key]

    def _settle(self, deployment: str, running: _Running, now: float) -> None:
        """Count the seconds since the last look into the minutes they lie in."""
        running.since = max(running.since, now - LEAP_S)
        while running.count and running.since < now:
            end = min(now, (running.since // 60 + 1) * 60)
            self._minute(deployment, running.since).active_s += end - running.since
            running.since = end
        running.since = now

    def _minute(self, deployment: str, at: float) -> Minute:
        return self._minutes.setdefault((deployment, int(at // 60) * 60), Minute())
