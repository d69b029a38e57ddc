"""Trials of engines and of pairs: which passed, which failed and when they are due again. A bounded number runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from controlplane.domain.verification import Standing
from controlplane.gateway.probing import DoorShut, ProbeFailed
from controlplane.gateway.table import Engine

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How eagerly engines are tried."""

    partners: int = 16  # that an engine is tried with before it is used; the rest follows when nothing presses
    at_once: int = 16  # trials, of all engines
    of_each: int = 4  # so that one that hangs does not keep the others waiting
    hurry_s: float = 1.0  # until half of an engine's trials will do
    tick_s: float = 0.25  # between looks for what is due, and between pairs that nothing waits for
    retry_s: float = 1.0  # after the first failure; doubled with each
    retry_most_s: float = 30.0
    forget_s: float = 600.0  # after an engine left the table


@dataclass(eq=False, slots=True)
class Seat:
    """One engine process in one role of one deployment. Known for a while after it left: it may come back."""

    engine: Engine
    deployment: str
    role: str
    ways: tuple[Way, ...] = ()  # what it has to pass before it is used
    admitted: bool = False
    passed: bool = False  # any trial, ever
    paired: bool = False  # decode: it was used together with a prefill engine
    rehearses: bool = False  # the engine has the other role, and could have this one without a restart
    standing: Standing = Standing.UNKNOWN
    since: float = 0.0  # it came into the table
    seen: float = 0.0
    told: tuple[int, int] = (-1, 0)  # the generation, and how many failures of it; 0 = that it passed


Way = tuple[Seat, ...]  # (prefill, decode), or one engine alone


@dataclass(slots=True)
class Trial:
    passed: bool | None = None  # None: never over
    why: str = ""
    failures: int = 0  # in a row
    due: float = 0.0
    running: bool = False


UNTRIED = Trial()


class Trials:
    """`ended` is called after each, with its way; not after one that met a shut door."""

    def __init__(self, pace: Pace, ended: Callable[[Way, Trial], None]) -> None:
        self._pace, self._ended = pace, ended
        self._trials: dict[Way, Trial] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[Seat] = Counter()
        self._loop = asyncio.get_running_loop()

    @property
    def is_full(self) -> bool:
        return len(self._tasks) >= self._pace.at_once

    @property
    def running(self) -> int:
        return len(self._tasks)

    def of(self, way: Way) -> Trial:
        """To be read only."""
        return self._trials.get(way, UNTRIED)

    def may_start(self, way: Way) -> bool:
        trial = self.of(way)
        if trial.running or trial.passed or trial.due > self._loop.time():
            return False
        return not self.is_full and all(self._busy[seat] < self._pace.of_each for seat in way)

    def start(self, way: Way, work: Callable[[], Awaitable[None]]) -> None:
        trial = self._trials.setdefault(way, Trial())
        trial.running = True
        self._busy.update(way)
        task = self._loop.create_task(self._run(way, trial, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hasten(self, seat: Seat) -> None:
        """Something changed about it: what failed is due now."""
        for way in seat.ways:
            if (trial := self._trials.get(way)) is not None:
                trial.due = 0.0

    def drop(self, way: Way) -> None:
        """Its result says nothing."""
        self._trials.pop(way, None)

    def forget(self, seats: set[Seat]) -> None:
        for way in [way for way in self._trials if not seats.isdisjoint(way)]:
            del self._trials[way]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, way: Way, trial: Trial, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except DoorShut:
            trial.due = self._loop.time() + self._pace.retry_s
            return
        except ProbeFailed as failure:
            self._failed(trial, str(failure))
        except Exception as error:
            log.exception("a trial could not be made", engines=[seat.engine.name for seat in way])
            self._failed(trial, f"it could not be tried: {error}")
        else:
            trial.passed, trial.why, trial.failures = True, "", 0
        finally:
            trial.running = False
            self._busy -= Counter(way)
        self._ended(way, trial)

    def _failed(self, trial: Trial, why: str) -> None:
        trial.passed, trial.why, trial.failures = False, why, trial.failures + 1
        wait_s = min(self._pace.retry_s * 2.0 ** min(trial.failures - 1, 16), self._pace.retry_most_s)
        trial.due = self._loop.time() + wait_s
