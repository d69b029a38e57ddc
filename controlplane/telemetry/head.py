"""Where the stream of frames is: its epoch and its last frame's number, written to Valkey by the leading process."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.telemetry import valkey

KEY = valkey.PREFIX + "live:head"


@dataclass(frozen=True, slots=True)
class Place:
    """`epoch` changes with the leader; within one, frames are numbered without a gap."""

    epoch: str
    seq: int


NOWHERE = Place("", 0)


def read() -> Place:
    with valkey.connection() as client:
        epoch, seq = client.hmget(KEY, "epoch", "seq")
    return Place(epoch.decode(), int(seq)) if epoch and seq else NOWHERE


def write(place: Place) -> None:
    with valkey.connection() as client:
        client.hset(KEY, mapping={"epoch": place.epoch, "seq": place.seq})
