"""Answers that last: a log as it is written, or the whole of it. Each holds a slot of its user's, so that a few people
who look on cannot keep a web process busy."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from django.core.handlers.asgi import ASGIRequest
from django.http import StreamingHttpResponse
from django.utils import timezone
from rest_framework.request import Request

from controlplane.domain import log_lines
from controlplane.domain.log_lines import Line, LogLevel
from controlplane.telemetry import logs, valkey
from controlplane.telemetry.log_pieces import NotSent
from controlplane.telemetry.logs import LogPiece, Source

EACH = 6  # streams and fetches of one user in this process
ALL = 100
FOLLOW_FOR_S = 600.0
LOOK_S = 0.5
SAY_EVERY_S = 10.0  # so that a client that left is noticed, and one that stays knows that we live
_open: list[Slot] = []
_lock = threading.Lock()


@dataclass(eq=False)
class Slot:
    """One of a user's streams; it ends by itself where nobody ended it."""

    user: int
    until: float = field(default_factory=lambda: time.monotonic() + FOLLOW_FOR_S)
    lent: bool = False  # to an answer that frees it at its end

    def free(self) -> None:
        with _lock:
            if self in _open:
                _open.remove(self)


@dataclass(frozen=True, slots=True)
class Chosen:
    search: str = ""
    level: LogLevel = LogLevel.DEBUG

    @property
    def some(self) -> bool:
        return bool(self.search) or self.level > LogLevel.DEBUG

    def of(self, piece: LogPiece) -> Iterator[Line]:
        found = log_lines.lines(piece.text, piece.offset, log_lines.last_level(piece.before))
        return log_lines.chosen(found, search=self.search, level=self.level)


def slot(user: int) -> Slot | None:
    """None where this user, or all users together, have as many as they may."""
    with _lock:
        _open[:] = [one for one in _open if one.until > time.monotonic()]
        if len(_open) >= ALL or sum(one.user == user for one in _open) >= EACH:
            return None
        made = Slot(user)
        _open.append(made)
        return made


def follow(request: Request, source: Source, offset: int, chosen: Chosen, slot: Slot) -> StreamingHttpResponse:
    """One JSON object a line. A server without streams gives what is there and ends."""
    looks = _Looks(source, offset, chosen)
    first = looks.once()
    body = _on(looks, first, slot) if _is_async(request) else iter([first])
    response = _lend(StreamingHttpResponse(body, content_type="application/x-ndjson"), slot)
    response["X-Accel-Buffering"] = "no"  # a proxy in between shall pass each line on at once
    return response


def file(request: Request, pieces: Iterator[str], chosen: Chosen, slot: Slot, *, name: str) -> StreamingHttpResponse:
    """What cannot be had at all is raised here; what breaks off later is said in the file."""
    first = next(pieces)
    body = _texts(first, pieces, chosen, slot)
    body = _in_threads(body) if _is_async(request) else body
    response = _lend(StreamingHttpResponse(body, content_type="text/plain; charset=utf-8"), slot)
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    response["Content-Disposition"] = f'attachment; filename="{safe}-{timezone.now():%Y-%m-%d-%H%M%S}.log"'
    return response


class _Looks:
    """Successive looks at a log that is followed, each as lines of JSON."""

    def __init__(self, source: Source, offset: int, chosen: Chosen) -> None:
        self._source, self._at, self._chosen = source, offset, chosen
        self._said = 0.0

    def once(self) -> str:
        """Raises valkey.Unreachable."""
        logs.want(self._source)
        piece = logs.read(self._source, self._at)
        told = [
            {"offset": line.offset, "level": line.level.name.lower(), "text": line.text}
            for line in self._chosen.of(piece)
        ]
        if piece.text:
            self._at = piece.next_offset
        if not told and time.monotonic() - self._said < SAY_EVERY_S:
            return ""
        self._said = time.monotonic()
        told = told or [{"state": "waiting" if piece.at is None else "live", "next_offset": piece.next_offset}]
        return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in told)

    def again(self) -> str:
        try:
            return self.once()
        except valkey.Unreachable:
            if time.monotonic() - self._said < SAY_EVERY_S:
                return ""
            self._said = time.monotonic()
            return '{"state": "unavailable"}\n'


async def _on(looks: _Looks, first: str, slot: Slot) -> AsyncIterator[str]:
    try:
        yield first
        while time.monotonic() < slot.until:
            await asyncio.sleep(LOOK_S)
            if said := await asyncio.to_thread(looks.again):
                yield said
        yield '{"state": "ended"}\n'
    finally:
        slot.free()


def _texts(first: str, rest: Iterator[str], chosen: Chosen, slot: Slot) -> Iterator[str]:
    before = ""
    try:
        for text in _to_the_end(first, rest):
            lines = chosen.of(LogPiece(0, 0, text, None, before)) if chosen.some else ()
            yield "".join(f"{line.text}\n" for line in lines) if chosen.some else text
            before = text
    finally:
        slot.free()


def _to_the_end(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    try:
        yield from rest
    except (NotSent, valkey.Unreachable):
        yield "[forebay] ERROR the rest of this log was not sent: fetch it again\n"


async def _in_threads(body: Iterator[str]) -> AsyncIterator[str]:
    while (text := await asyncio.to_thread(next, body, None)) is not None:
        yield text


def _lend(response: StreamingHttpResponse, slot: Slot) -> StreamingHttpResponse:
    slot.lent = True
    response._resource_closers.append(slot.free)
    response["Cache-Control"] = "no-store"
    return response


def _is_async(request: Request) -> bool:
    return isinstance(getattr(request, "_request", request), ASGIRequest)
