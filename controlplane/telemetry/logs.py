"""Logs that somebody looks at right now: of engines, of agents, of our own processes. They pass through Valkey and are
gone minutes later. A log that is followed is kept once for all who look; a single piece is fetched by `log_pieces`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from controlplane.telemetry import valkey
from workers.contract import LogChunk, LogWanted

WANT_FOR_S = 10
KEEP_BYTES = 256 * 1024
KEEP_FOR_S = 300
PIECE_FOR_S = 60
PIECE_CHUNKS = 32  # of one piece that wait to be taken
TAIL = -1
WANTED_OF = valkey.PREFIX + "logs:wanted-of"  # nodes, by until when
_wanted_of: frozenset[int] = frozenset()

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
Owner = int | str  # who sends the log: a node by its id, a process of ours by its name


@dataclass(frozen=True, slots=True)
class Source:
    """A log: `part` is the partition of `owner`, 0 its own log."""

    owner: Owner
    part: int = 0


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Log text from byte `offset` of the file; go on at `next_offset`. `at`: when the last of it came, unix s.
    `before`: the text just before it that is still kept."""

    offset: int
    next_offset: int
    text: str
    at: float | None
    before: str = ""


class _Asked(msgspec.Struct, omit_defaults=True):
    until: float
    piece: LogWanted | None = None


def want(source: Source) -> None:
    """Somebody looks at this log: its owner is asked for it for the next WANT_FOR_S."""
    ask(source.owner, str(source.part), None, WANT_FOR_S)


def ask(owner: Owner, field: str, piece: LogWanted | None, for_s: float) -> None:
    asked = msgspec.json.encode(_Asked(time.time() + for_s, piece))
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.hset(wanted_key(owner), field, asked)
        pipe.expire(wanted_key(owner), int(2 * for_s))  # what is on its way when interest ends still counts as wanted
        pipe.zadd(WANTED_OF, {str(owner): time.time() + for_s})
        pipe.expire(WANTED_OF, KEEP_FOR_S)
        pipe.execute()


def look_who_is_wanted() -> None:
    """Ask which nodes' logs somebody looks at now; `is_wanted_of` then tells without asking."""
    global _wanted_of  # noqa: PLW0603 - what this process knows
    now = time.time()
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.zremrangebyscore(WANTED_OF, "-inf", now)
        pipe.zrange(WANTED_OF, 0, -1)
        _, owners = pipe.execute()
    _wanted_of = frozenset(int(owner) for owner in owners if owner.isdigit())


def is_wanted_of(node: int) -> bool:
    """Whether a log of that node was wanted at the last look, a moment ago."""
    return node in _wanted_of


def wanted(owner: Owner) -> tuple[LogWanted, ...]:
    """What to ask this owner for: each log from where our text of it ends. Empty without Valkey."""
    try:
        with valkey.connection() as client:
            fields = client.hgetall(wanted_key(owner))
            asked = {key.decode(): msgspec.json.decode(value, type=_Asked) for key, value in fields.items()}
            open_ = {field: one for field, one in asked.items() if one.until > time.time()}
            return tuple(one.piece or _follow(client, owner, int(field)) for field, one in open_.items())
    except valkey.Unreachable:
        return ()


def keep(owner: Owner, chunks: Iterable[LogChunk]) -> None:
    """Store what this owner sent of the logs it was asked for; anything else it sends is dropped."""
    chunks = [chunk for chunk in chunks if chunk.text or chunk.id]
    if not chunks:
        return
    try:
        with valkey.connection() as client:
            asked = {key.decode() for key in client.hkeys(wanted_key(owner))}
            for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
                if chunk.id and chunk.id in asked:
                    _put_piece(client, owner, chunk)
                elif not chunk.id and str(chunk.partition) in asked:
                    _keep(client, Source(owner, chunk.partition), chunk)
            if done := {chunk.id for chunk in chunks if chunk.id} & asked:
                client.hdel(wanted_key(owner), *done)
    except valkey.Unreachable:
        return  # who looks at the log is told by the view


def read(source: Source, offset: int = TAIL) -> LogPiece:
    """What is kept from `offset` on; all of it where `offset` is TAIL or lies outside."""
    with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
        pipe.hmget(_meta(source), "start", "at")
        pipe.get(_text(source))
        (start, at), text = pipe.execute()
    if start is None or text is None:
        return LogPiece(offset=max(offset, 0), next_offset=offset, text="", at=None)
    start, end = int(start), int(start) + len(text)
    if not start <= offset <= end:
        offset = start
    # A cut may have split a character at the head; chunks end with whole ones.
    before, piece = text[: offset - start].decode(errors="ignore"), text[offset - start :].decode(errors="ignore")
    return LogPiece(offset=offset, next_offset=end, text=piece, at=float(at), before=before)


def wanted_key(owner: Owner) -> str:
    return f"{valkey.PREFIX}logs:asked:{owner}"


def pieces_key(owner: Owner, piece: str) -> str:
    return f"{valkey.PREFIX}logs:piece:{owner}:{piece}"


def _put_piece(client: valkey.redis.Redis, owner: Owner, chunk: LogChunk) -> None:
    key = pieces_key(owner, chunk.id)
    with client.pipeline(transaction=False) as pipe:
        pipe.rpush(key, msgspec.msgpack.encode(chunk))
        pipe.ltrim(key, -PIECE_CHUNKS, -1)
        pipe.expire(key, PIECE_FOR_S)
        pipe.execute()


def _keep(client: valkey.redis.Redis, source: Source, chunk: LogChunk) -> None:
    keys = (_text(source), _meta(source))
    client.eval(_KEEP, 2, *keys, chunk.offset, chunk.text.encode(), KEEP_BYTES, time.time(), KEEP_FOR_S)


def _follow(client: valkey.redis.Redis, owner: Owner, part: int) -> LogWanted:
    source = Source(owner, part)
    start = client.hget(_meta(source), "start")
    end = TAIL if start is None else int(start) + client.strlen(_text(source))
    return LogWanted(partition=part, offset=end)


def _text(source: Source) -> str:
    return f"{valkey.PREFIX}logs:text:{source.owner}:{source.part}"


def _meta(source: Source) -> str:
    return f"{valkey.PREFIX}logs:meta:{source.owner}:{source.part}"
