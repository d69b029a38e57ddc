"""Tells engines to sleep and to wake, in threads of its own: moving a model's weights takes seconds, or minutes."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from workers.book import Record, clock
from workers.contract import Phase
from workers.engines import sleeping
from workers.engines.sleeping import SleepError
from workers.processes import Process

log = logging.getLogger(__name__)
THREADS = 8
Key = tuple[Process, Phase]


@dataclass(frozen=True, slots=True)
class Outcome:
    """When it was through, and what went wrong, "" if nothing did."""

    at: float
    error: str = ""


class Turns:
    def __init__(self, host: str, client: httpx.Client | None = None) -> None:
        """`host` is where this node's engines are reached from the node itself."""
        self._host = host
        # trust_env off: no proxy may see the engines' secrets.
        self._client = client or httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=THREADS))
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sleep")
        self._lock = threading.Lock()
        self._asked: set[Key] = set()
        self._outcomes: dict[Key, Outcome] = {}

    def outcome(self, record: Record) -> Outcome | None:
        """What came of telling this process what its phase says; None while that is not known. It is asked once: what
        an agent before this one asked for is asked for again."""
        assert record.process is not None
        key = record.process, record.replica.phase
        with self._lock:
            if (found := self._outcomes.get(key)) is not None or key in self._asked:
                return found
            self._asked.add(key)
        self._pool.submit(self._turn, key, record)
        return None

    def forget(self, record: Record) -> None:
        """It has taken its turn, or ended: it may be asked again."""
        with self._lock:
            for phase in (Phase.DOZING, Phase.WAKING):
                if record.process is not None:
                    self._asked.discard((record.process, phase))
                    self._outcomes.pop((record.process, phase), None)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _turn(self, key: Key, record: Record) -> None:
        turn = sleeping.doze if key[1] == Phase.DOZING else sleeping.wake
        error = ""
        try:
            turn(self._client, record.url(self._host), record.secret, record.level)
        except SleepError as failure:
            error = str(failure)
        except Exception as failure:
            log.exception("%s: %s", record.replica.spec.name, key[1])
            error = str(failure) or type(failure).__name__
        with self._lock:
            if key in self._asked:  # else nobody waits for it any more
                self._outcomes[key] = Outcome(clock(), error[:256])
