"""The latest figures of each node in Valkey: one key a node, and the set of those that changed since last looked."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from controlplane.telemetry import valkey
from workers.contract import DeviceSample, HostSample

log = structlog.get_logger(__name__)

# A silent node is shown with its last values for this long, then with those of its last database row.
KEEP_S = 6 * 3600
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
    """Store these and mark their nodes as changed: one round trip, however many."""
    if not latest:
        return
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        for one in latest:
            pipe.set(_key(one.node), _encode(one), ex=KEEP_S)
        pipe.sadd(DIRTY, *(one.node for one in latest))
        pipe.execute()


def read(nodes: Iterable[int]) -> dict[int, Latest]:
    """The latest of those nodes that have one."""
    keys = [_key(node) for node in nodes]
    if not keys:
        return {}
    with valkey.connection() as client:
        found = (_decode(value) for value in client.mget(keys))
        return {latest.node: latest for latest in found if latest is not None}


def pop_changed() -> set[int]:
    """The nodes that were kept since the last call. For the one leader: each change is told once."""
    with valkey.connection() as client, client.pipeline(transaction=True) as pipe:
        pipe.smembers(DIRTY)
        pipe.delete(DIRTY)
        members, _ = pipe.execute()
    return {int(member) for member in members}


def _key(node: int) -> str:
    return f"{valkey.PREFIX}live:node:{node}"


def _decode(value: bytes | None) -> Latest | None:
    if value is None:
        return None
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:  # written by another version: the next report replaces it
        log.warning("unreadable live figures", error=str(error))
        return None
