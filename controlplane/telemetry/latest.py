"""The latest figures of each node in Valkey: one hash of all, the set of those that changed since the last frame, and
the number of each node's last change, by which others tell what they have not read yet."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from math import isfinite

import msgspec
import structlog

from controlplane.telemetry import valkey
from workers.contract import DeviceSample, HostSample

log = structlog.get_logger(__name__)

# A silent node is shown with its last values for this long, then with those of its last database row.
KEEP_S = 6 * 3600
NODES = valkey.PREFIX + "live:nodes"
DIRTY = valkey.PREFIX + "live:dirty"
COUNT = valkey.PREFIX + "live:count"  # of changes
CHANGES = valkey.PREFIX + "live:changes"  # nodes by the number of their last one
TRUST_S = (
    3.0  # a node that was not heard for so long is read each time, in case somebody keeps figures without a number
)
_NUMBER = """
local number = redis.call('INCR', KEYS[1])
for _, node in ipairs(ARGV) do redis.call('ZADD', KEYS[2], number, node) end
"""  # at once, so that no smaller number comes after a greater one


class EngineFigures(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """What people look at of one engine. None: unknown, never zero."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prompt_tps: float | None = None
    generation_tps: float | None = None
    kv_in_tps: float | None = None  # prompt tokens whose KV came by transfer
    ttft_ms: float | None = None
    itl_ms: float | None = None
    kv_tokens: float | None = None  # that its KV cache holds when it is full


class Latest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node's last report as figures. `seen` is the server's clock; devices by uuid, the rest by partition."""

    node: int
    seen: float
    period_s: float = 1.0
    skew_s: float | None = None
    host: HostSample | None = None
    devices: dict[str, DeviceSample] = {}
    engines: dict[int, EngineFigures] = {}
    process_bytes: dict[int, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Latest)
_HUGE = (b"\xcb\x7f", b"\xcb\xff")  # how a float begins that is infinite, not a number, or beyond 1e300


def keep(*latest: Latest) -> None:
    """Store these and mark their nodes as changed: four commands, however many."""
    if not latest:
        return
    nodes = [one.node for one in latest]
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.hset(NODES, mapping={str(one.node): _encode(one) for one in latest})
        pipe.expire(NODES, KEEP_S)
        pipe.sadd(DIRTY, *nodes)
        pipe.eval(_NUMBER, 2, COUNT, CHANGES, *nodes)  # last: who reads the number finds the figures
        pipe.execute()


class Reader:
    """All that is kept, of which only what changed since is read again. Not for several threads at once."""

    def __init__(self) -> None:
        self._held: dict[int, Latest] = {}
        self._number = 0

    def read(self, nodes: Collection[int]) -> dict[int, Latest]:
        """The latest of those nodes that have one; of each the same object until there is another."""
        with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
            pipe.get(COUNT)
            pipe.zrange(CHANGES, f"({self._number}", "+inf", byscore=True)
            count, members = pipe.execute()
        number = int(count or 0)
        if number < self._number or not number:  # it began anew
            self._held = {}
        changed, trusted = {int(member) for member in members}, time.time() - TRUST_S
        held = {pk: one for pk, one in self._held.items() if one.seen > trusted and pk not in changed}
        found = read(pk for pk in nodes if pk not in held)
        self._held, self._number = held | found, number
        return {pk: self._held[pk] for pk in nodes if pk in self._held}


def read(nodes: Iterable[int]) -> dict[int, Latest]:
    """The latest of those nodes that have one."""
    fields = [str(node) for node in nodes]
    if not fields:
        return {}
    oldest = time.time() - KEEP_S
    with valkey.connection() as client:
        found = (_decode(value) for value in client.hmget(NODES, fields))
        return {latest.node: latest for latest in found if latest is not None and latest.seen > oldest}


def forget_all_but(nodes: Collection[int]) -> None:
    """Drop what is kept of nodes that are gone."""
    with valkey.connection() as client:
        if gone := [field for field in client.hkeys(NODES) if int(field) not in nodes]:
            client.hdel(NODES, *gone)
            client.zrem(CHANGES, *gone)


def pop_changed() -> set[int]:
    """The nodes that were kept since the last call. For the one leader: each change is told once."""
    with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
        pipe.smembers(DIRTY)
        pipe.delete(DIRTY)
        members, _ = pipe.execute()
    return {int(member) for member in members}


def _decode(value: bytes | None) -> Latest | None:
    if value is None:
        return None
    try:
        if _HUGE[0] in value or _HUGE[1] in value:
            return msgspec.convert(_without_nan(msgspec.msgpack.decode(value)), Latest)
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:  # written by another version: the next report replaces it
        log.warning("unreadable live figures", error=str(error))
        return None


def _without_nan(told: object) -> object:
    """What is no finite number is left out, as what nobody told: the bounds of a figure would refuse all of them."""
    if not isinstance(told, dict):
        return told
    finite = {name: value for name, value in told.items() if not isinstance(value, float) or isfinite(value)}
    return {name: _without_nan(value) for name, value in finite.items()}
