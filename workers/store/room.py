"""Whether weights may be fetched, and which make room for them: a rule, without a disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

GIB = 2**30
FREE_SHARE = 0.1  # of the disk, where nobody says how much is to stay free


@dataclass(frozen=True, slots=True)
class Limits:
    """`cap_bytes`: what fetched weights may come to; None: whatever the disk holds. `free_bytes`: what is to stay free
    on the disk; None: a tenth of it."""

    cap_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    total: int
    free: int

    def spare(self, limits: Limits) -> int:
        """Bytes that may be written to it; negative where it is fuller than it shall be."""
        kept = int(self.total * FREE_SHARE) if limits.free_bytes is None else limits.free_bytes
        return self.free - kept


@dataclass(frozen=True, slots=True)
class Kept:
    """Weights that were fetched, or began to be. `used_at`: when they were used last, or fetched, in unix seconds."""

    source: str
    commit: str
    bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class NoRoom:
    why: str


def make_room(
    kept: Sequence[Kept], *, total: int, left: int, limits: Limits, disk: Disk, protected: Collection[str]
) -> tuple[Kept, ...] | NoRoom:
    """Those that go, the least recently used first, for weights of `total` bytes of which `left` are not there yet.
    `kept` are all the others. `protected`: sources that stay whatever happens. Nothing goes in vain."""
    over_cap = 0 if limits.cap_bytes is None else sum(one.bytes for one in kept) + total - limits.cap_bytes
    short = left - disk.spare(limits)
    gone: list[Kept] = []
    for one in sorted((one for one in kept if one.source not in protected), key=lambda one: one.used_at):
        if over_cap <= 0 and short <= 0:
            break
        over_cap, short = over_cap - one.bytes, short - one.bytes
        gone.append(one)
    if over_cap > 0:
        return NoRoom(
            f"it needs {_size(total)}, and with what has to stay that is {_size(over_cap)} above the cap of"
            f" {_size(limits.cap_bytes or 0)}"
        )
    if short > 0:
        return NoRoom(f"it needs {_size(left)} more, and {_size(short)} of disk are missing beside what stays free")
    return tuple(gone)


def room_bytes(kept: Sequence[Kept], limits: Limits, disk: Disk) -> int:
    """What fetched weights may come to in all, in whole GiB so that it seldom changes."""
    by_disk = max(0, sum(one.bytes for one in kept) + disk.spare(limits))
    return min(by_disk, by_disk if limits.cap_bytes is None else limits.cap_bytes) // GIB * GIB


def _size(bytes: int) -> str:
    return f"{bytes / GIB:.1f} GiB" if bytes >= GIB else f"{bytes / 2**20:.1f} MiB"
