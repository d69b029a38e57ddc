"""The latest figures of each node in Valkey: one hash of all, and the set of those that changed since last looked."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

import msgspec
import structlog

from controlplane.telemetry import valkey
from workers.contract import DeviceSample, HostSample

log = structlog.get_logger(__name__)

# A silent node is shown with its last values for this long, then with those of its last database row.
KEEP_S = 6 * 3600
NODES = valkey.PREFIX + "live:nodes"
DIRTY = valkey.PREFIX + "live:dirty"


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


def keep(*latest: Latest) -> None:
    """Store these and mark their nodes as changed: three commands, however many."""
    if not latest:
        return
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.hset(NODES, mapping={str(one.node): _encode(one) for one in latest})
        pipe.expire(NODES, KEEP_S)
        pipe.sadd(DIRTY, *(one.node for one in latest))
        pipe.execute()


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
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:  # written by another version: the next report replaces it
        log.warning("unreadable live figures", error=str(error))
        return None
