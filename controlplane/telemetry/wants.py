"""What the watchers of each web process want of the frames, told through Valkey to the one that makes them."""

from __future__ import annotations

import time

import msgspec

from controlplane.telemetry import valkey
from controlplane.telemetry.frame import NOTHING, Wants

KEY = valkey.PREFIX + "live:wants"
GOOD_FOR_S = 5.0  # it is told anew each second; what a dead process wanted is forgotten


class _Told(msgspec.Struct):
    until: float
    wants: Wants


def tell(process: str, wants: Wants) -> None:
    told = _Told(time.time() + GOOD_FOR_S, wants)
    with valkey.connection() as client, client.pipeline(transaction=False) as pipe:
        pipe.hset(KEY, process, msgspec.msgpack.encode(told))
        pipe.expire(KEY, 60)
        pipe.execute()


def of_others(process: str) -> Wants:
    """All that other processes want now."""
    with valkey.connection() as client:
        found = {
            field.decode(): msgspec.msgpack.decode(value, type=_Told) for field, value in client.hgetall(KEY).items()
        }
        if old := [field for field, told in found.items() if told.until < time.time()]:
            client.hdel(KEY, *old)
    wants = NOTHING
    for field, told in found.items():
        if field != process and field not in old:
            wants |= told.wants
    return wants
