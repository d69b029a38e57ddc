"""Single pieces of a log, asked for and waited for: an earlier engine's, the last minutes, a whole log as a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from controlplane.telemetry import logs, valkey
from controlplane.telemetry.logs import LogPiece, Source
from workers.contract import LogChunk, LogWanted

STEP_BYTES = 256 * 1024  # what one report of a node carries at most
PIECE_BYTES = 256 * 1024
FILE_BYTES = 16 * 2**20  # the newest of a log that is taken away as a file
WAIT_S = 6.0  # an agent answers with its next report or the one after


class NotSent(Exception):
    """Nothing came in time: the owner is away, or too old to know single pieces."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which text of a log: of the engine before the present one, of the last `ago_s` seconds, or from byte `at` on."""

    previous: bool = False
    ago_s: float | None = None
    at: int | None = None


def fetch(source: Source, which: Which = Which(), limit: int = PIECE_BYTES, wait_s: float = WAIT_S) -> LogPiece:
    """The newest `limit` bytes of it, or the first from `at` on. Raises NotSent, and valkey.Unreachable."""
    wanted = _step(source, which, logs.TAIL if which.at is None else which.at, limit)
    chunks = _answer(source, wanted, wait_s)
    text = "".join(chunk.text for chunk in chunks)
    first, last = chunks[0], chunks[-1]
    return LogPiece(first.offset, last.offset + len(last.text.encode()), text, time.time())


def whole(source: Source, which: Which = Which(), limit: int = FILE_BYTES) -> Iterator[str]:
    """All that its owner still has, at most `limit` bytes, piece by piece up to where it ended when asked. Each is
    asked for when the one before was taken: a slow reader fills no memory. What is raised comes before the first."""
    began = _answer(source, _step(source, which, logs.TAIL, limit), WAIT_S)
    end = began[0].end or 0
    yield "".join(chunk.text for chunk in began)
    at = _next(began)
    while at < end:
        chunks = _answer(source, _step(source, which, at, min(STEP_BYTES, end - at)), WAIT_S)
        text = "".join(chunk.text for chunk in chunks)
        if not text:
            return
        yield text
        at = _next(chunks)


def _step(source: Source, which: Which, offset: int, limit: int) -> LogWanted:
    return LogWanted(partition=source.part, offset=offset, id=uuid4().hex, limit=limit, previous=which.previous,
                     ago_s=which.ago_s)  # fmt: skip


def _next(chunks: list[LogChunk]) -> int:
    return chunks[-1].offset + len(chunks[-1].text.encode())


def _answer(source: Source, wanted: LogWanted, wait_s: float) -> list[LogChunk]:
    """The chunks of one answer. They are stored together, so what is there after the first is all."""
    key = logs.pieces_key(source.owner, wanted.id)
    logs.ask(source.owner, wanted.id, wanted, wait_s)
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
            pipe.lrange(key, 0, -1)
            pipe.hexists(logs.wanted_key(source.owner), wanted.id)
            found, still_open = pipe.execute()
            if found and not still_open:
                client.delete(key)
                return [msgspec.msgpack.decode(chunk, type=LogChunk) for chunk in found]
        time.sleep(0.05)
    raise NotSent
