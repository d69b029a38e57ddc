"""The text that answers what the control plane asks of this node's logs, within what one report may carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workers.book import Record
from workers.contract import LogChunk, LogWanted
from workers.logs import CHUNK_BYTES, OWN, Log, Logs

MOST = 16  # logs in one report
MOST_BYTES = 256 * 1024  # of text in one report: six times as much in JSON, where every byte is a control character


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the text is: a log, or the part of it before `until`, from `since` on."""

    log: Log
    since: int = 0
    until: int | None = None
    finished: bool = False


def of(
    wanted: Iterable[LogWanted], records: Iterable[Record], logs: Logs, secrets: Iterable[str], now: float
) -> tuple[LogChunk, ...]:
    """What is asked for, as much of it as one report may carry; the rest is asked for again."""
    known, left, chunks = {record.partition: record for record in records}, MOST_BYTES, []
    for one in wanted:
        if left > 0 and (source := _source(one, known, logs)):
            for chunk in _chunks(one, source, frozenset(secrets), now, left):
                chunks.append(chunk)
                left -= len(chunk.text.encode())
    return tuple(chunks)


def is_new(wanted: Iterable[LogWanted], before: Iterable[LogWanted]) -> bool:
    """Whether somebody began to look, or asks for a piece: they should not wait for a whole period."""
    known = {(one.partition, one.id) for one in before}
    return any(one.id or (one.partition, one.id) not in known for one in wanted)


def _source(wanted: LogWanted, known: dict[int, Record], logs: Logs) -> _Source | None:
    if wanted.partition == 0:
        return _Source(logs.of(OWN))
    record = known.get(wanted.partition)
    if record is None or not record.log:
        return None
    log = logs.of(record.log)
    if wanted.previous:
        return _Source(log, since=record.log_before, until=record.log_start)
    return _Source(log, finished=not record.is_live)


def _chunks(wanted: LogWanted, source: _Source, secrets: frozenset[str], now: float, left: int) -> Iterator[LogChunk]:
    if not wanted.id:
        offset, text = source.log.read(wanted.offset, secrets, min(CHUNK_BYTES, left), finished=source.finished)
        yield LogChunk(partition=wanted.partition, offset=offset, text=text)
        return
    end = source.log.end() if source.until is None else source.until
    offset, stop = _begin(wanted, source, end, now), min(left, wanted.limit)
    while True:
        start, text = source.log.read(
            offset, secrets, max(min(CHUNK_BYTES, stop), 0), until=source.until, finished=source.finished
        )
        yield LogChunk(partition=wanted.partition, offset=start, text=text, id=wanted.id, end=end)
        offset, stop = start + len(text.encode()), stop - len(text.encode())
        if not text or stop <= 0 or offset >= end:
            return


def _begin(wanted: LogWanted, source: _Source, end: int, now: float) -> int:
    """Where the piece begins: at its offset, at a moment, or so that it ends where the text does."""
    if wanted.offset >= 0:
        return max(wanted.offset, source.since)
    since = source.since if wanted.ago_s is None else max(source.since, source.log.at(now - wanted.ago_s))
    return max(since, end - wanted.limit)
