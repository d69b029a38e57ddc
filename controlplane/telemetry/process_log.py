"""The log of our own processes (web, gateway, worker): the newest of it in memory, given through Valkey to who looks.

Nothing waits for it: without Valkey, or with nobody looking, a process only keeps its lines. The complete log is where
it always was, on standard error."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import structlog
from django.conf import settings

from controlplane.telemetry import logs, valkey
from workers.contract import LogChunk, LogWanted
from workers.redaction import decoded, of_environment, of_url, redact

log = structlog.get_logger(__name__)
KEEP_BYTES = 1024 * 1024
CHUNK_BYTES = 32 * 1024
ANSWER_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024  # of a longer one the rest is cut off
LOOK_S = 0.5
BEAT_S = 5.0
GONE_AFTER_S = 20.0
_KEY = valkey.PREFIX + "logs:processes"


class Seen(msgspec.Struct):
    """A process that gives its log. `at`: when it last said so, unix s."""

    name: str
    kind: str
    at: float


class ProcessLog(logging.Handler):
    """Lines with the bytes that came before each, the oldest let go."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden = frozenset(hidden)
        self._lines: deque[bytes] = deque()
        self._start = self._size = 0
        found = [handler.formatter for handler in logging.getLogger().handlers if handler.formatter]
        self.setFormatter(found[0] if found else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = redact(self.format(record), self._hidden)
        except Exception:
            self.handleError(record)
            return
        line = text.encode(errors="replace")[:LINE_BYTES].decode(errors="ignore").encode() + b"\n"
        self._lines.append(line)  # under the handler's own lock
        self._size += len(line)
        while self._size > KEEP_BYTES:
            gone = len(self._lines.popleft())
            self._start, self._size = self._start + gone, self._size - gone

    def answer(self, wanted: LogWanted) -> list[LogChunk]:
        """What is asked for, whole lines; of a process that ended before this one nothing is known."""
        with self.lock or threading.RLock():
            start, end, text = self._start, self._start + self._size, b"".join(self._lines)
        limit = min(wanted.limit, ANSWER_BYTES) if wanted.id else ANSWER_BYTES // 2
        if wanted.previous:
            return [LogChunk(partition=0, offset=0, text="", id=wanted.id, end=0)]
        at = wanted.offset if start <= wanted.offset <= end else max(start, end - (wanted.limit or CHUNK_BYTES))
        cut = text[at - start : at - start + limit]
        if at > start and wanted.offset < 0:
            at, cut = at + cut.find(b"\n") + 1, cut[cut.find(b"\n") + 1 :]
        cut = cut[: cut.rfind(b"\n") + 1]
        pieces = [cut[n : n + CHUNK_BYTES] for n in range(0, len(cut), CHUNK_BYTES)] or [b""]
        return [
            LogChunk(partition=0, offset=at + n * CHUNK_BYTES, text=decoded(piece), id=wanted.id, end=end)
            for n, piece in enumerate(pieces)
        ]


@dataclass(frozen=True, slots=True)
class Giver:
    """`answer_once` is one look: whether somebody wants the log, and the answer."""

    name: str
    kind: str
    kept: ProcessLog

    def answer_once(self) -> None:
        for wanted in logs.wanted(self.name):
            logs.keep(self.name, self.kept.answer(wanted))

    def beat(self, now: float) -> None:
        """Tell that this process is there. Without Valkey nobody could look anyway."""
        try:
            with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
                pipe.hset(_KEY, self.name, msgspec.json.encode(Seen(self.name, self.kind, now)))
                pipe.expire(_KEY, 3600)
                pipe.execute()
        except valkey.Unreachable:
            return

    def run(self) -> None:
        beat_at = 0.0
        while True:
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + BEAT_S
                    self.beat(time.time())
                self.answer_once()
            except Exception:
                log.exception("the log of this process was not given")
                time.sleep(BEAT_S)
            time.sleep(LOOK_S)


def begin(kind: str, mark: str | int = "") -> Giver:
    """Keep this process's log from now on and give it, under a name made of its kind, its host and `mark`."""
    kept = ProcessLog(_secrets())
    logging.getLogger().addHandler(kept)
    giver = Giver(f"{kind}@{socket.gethostname()}:{mark or os.getpid()}", kind, kept)
    threading.Thread(target=giver.run, name="process-log", daemon=True).start()
    return giver


def processes(now: float) -> list[Seen]:
    """Those that were there a moment ago, by name. Raises valkey.Unreachable."""
    with valkey.connection() as client:
        found = [msgspec.json.decode(value, type=Seen) for value in client.hgetall(_KEY).values()]
        if old := [seen.name for seen in found if now - seen.at > GONE_AFTER_S]:
            client.hdel(_KEY, *old)
    return sorted((seen for seen in found if seen.name not in old), key=lambda seen: seen.name)


def _secrets() -> frozenset[str]:
    database = settings.DATABASES["default"].get("PASSWORD") or ""
    known = frozenset(found for found in (settings.SECRET_KEY, database) if found)
    return known | of_url(settings.REDIS_URL) | of_environment(os.environ)
