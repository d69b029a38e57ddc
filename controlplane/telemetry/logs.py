"""Engine logs that somebody looks at right now. They pass through Valkey and are gone minutes later."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.telemetry import valkey
from workers.contract import LogChunk, LogWanted

WANT_FOR_S = 10
KEEP_BYTES = 256 * 1024
KEEP_FOR_S = 300
TAIL = -1

# Append a chunk that continues the text, ignore one that is in it already, else begin anew with it: the file was
# rotated, or something in between was skipped. Then cut the text's head to the limit.
_KEEP = """
local text, meta, offset, chunk = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2]
local start = tonumber(redis.call('HGET', meta, 'start') or '-1')
local size = redis.call('STRLEN', text)
if size > 0 and start >= 0 and offset == start + size then
  redis.call('APPEND', text, chunk)
elseif size > 0 and start >= 0 and offset >= start and offset + #chunk <= start + size
    and redis.call('GETRANGE', text, offset - start, offset - start + #chunk - 1) == chunk then
  return 0
else
  redis.call('SET', text, chunk)
  start = offset
end
size = redis.call('STRLEN', text)
local limit = tonumber(ARGV[3])
if size > limit then
  redis.call('SET', text, redis.call('GETRANGE', text, size - limit, -1))
  start = start + size - limit
end
redis.call('HSET', meta, 'start', string.format('%.0f', start), 'at', ARGV[4])
redis.call('EXPIRE', text, ARGV[5])
redis.call('EXPIRE', meta, ARGV[5])
return 1
"""


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Log text from byte `offset` of the file; go on at `next_offset`. `at`: when the last of it came, unix s."""

    offset: int
    next_offset: int
    text: str
    at: float | None


def want(node: int, partition: int) -> None:
    """Somebody looks at this partition's log: its agent is asked for it for the next WANT_FOR_S."""
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.hset(_wanted(node), str(partition), time.time() + WANT_FOR_S)
        pipe.expire(_wanted(node), 2 * WANT_FOR_S)  # what is on its way when interest ends still counts as wanted
        pipe.execute()


def wanted(node: int) -> tuple[LogWanted, ...]:
    """What to ask this node's agent for: each log from where our text of it ends. Empty without Valkey."""
    try:
        with valkey.connection() as client:
            until = client.hgetall(_wanted(node))
            partitions = [int(key) for key, value in until.items() if float(value) > time.time()]
            return tuple(LogWanted(partition=key, offset=_end(client, key)) for key in partitions)
    except valkey.Unreachable:
        return ()


def keep(node: int, chunks: Iterable[LogChunk]) -> None:
    """Store what this node's agent sent of the logs it was asked for; anything else it sends is dropped."""
    chunks = [chunk for chunk in chunks if chunk.text]
    if not chunks:
        return
    try:
        with valkey.connection() as client:
            asked = {int(key) for key in client.hkeys(_wanted(node))}
            for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
                if chunk.partition in asked:
                    _keep(client, chunk)
    except valkey.Unreachable:
        return  # who looks at the log is told by the view


def read(partition: int, offset: int = TAIL) -> LogPiece:
    """What is kept from `offset` on; all of it where `offset` is TAIL or lies outside."""
    with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
        pipe.hmget(_meta(partition), "start", "at")
        pipe.get(_text(partition))
        (start, at), text = pipe.execute()
    if start is None or text is None:
        return LogPiece(offset=max(offset, 0), next_offset=offset, text="", at=None)
    start, end = int(start), int(start) + len(text)
    if not start <= offset <= end:
        offset = start
    # A cut may have split a character at the head; chunks end with whole ones.
    piece = text[offset - start :].decode(errors="ignore")
    return LogPiece(offset=offset, next_offset=end, text=piece, at=float(at))


def _keep(client: valkey.redis.Redis, chunk: LogChunk) -> None:
    keys = (_text(chunk.partition), _meta(chunk.partition))
    client.eval(_KEEP, 2, *keys, chunk.offset, chunk.text.encode(), KEEP_BYTES, time.time(), KEEP_FOR_S)


def _end(client: valkey.redis.Redis, partition: int) -> int:
    start = client.hget(_meta(partition), "start")
    return TAIL if start is None else int(start) + client.strlen(_text(partition))


def _wanted(node: int) -> str:
    return f"{valkey.PREFIX}logs:wanted:{node}"


def _text(partition: int) -> str:
    return f"{valkey.PREFIX}logs:text:{partition}"


def _meta(partition: int) -> str:
    return f"{valkey.PREFIX}logs:meta:{partition}"
