"""Of which size a pool has too few slots, and which it can do without. A slot holds what a smaller one holds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sized:
    """A partition and its GPUs."""

    partition: int
    gpus: int


def short(have: Sequence[int], wanted: Mapping[int, int]) -> Counter[int]:
    """Slots that are lacking, by the GPUs that they need. `have`: the GPUs of each slot; `wanted`: slots by their GPUs.
    The largest are served first, each by the smallest slot that will do: so the fewest are lacking."""
    left, lacking = Counter(have), Counter[int]()
    for gpus in sorted(wanted, reverse=True):
        missing = wanted[gpus]
        for size in sorted(size for size in left if size >= gpus):
            taken = min(missing, left[size])
            left[size] -= taken
            missing -= taken
        if missing:
            lacking[gpus] = missing
    return lacking


def spare(slots: Sequence[Sized], empty: Sequence[Sized], wanted: Mapping[int, int], *, least: int) -> list[Sized]:
    """Of the `empty` among `slots`, those without which no more is lacking than with them and `least` are left of any;
    the largest first."""
    have = [one.gpus for one in slots]
    lacking = short(have, wanted).total()
    found = []
    for one in sorted(empty, key=lambda one: -one.gpus):
        without = Counter(have)
        without[one.gpus] -= 1
        rest = list(without.elements())
        if len(rest) >= least and short(rest, wanted).total() <= lacking:
            have = rest
            found.append(one)
    return found


def to_add(have: Sequence[int], free: Sequence[Sized], wanted: Mapping[int, int]) -> list[tuple[Sized, int]]:
    """(partition, the GPUs that a slot was lacking of): for each slot that is lacking the first of `free` with as few
    GPUs as will do; none where all are too small."""
    left, found = list(free), []
    for gpus, count in sorted(short(have, wanted).items(), reverse=True):
        for _ in range(count):
            able = [one for one in left if one.gpus >= gpus]
            if not able:
                break
            chosen = min(able, key=lambda one: one.gpus)
            left.remove(chosen)
            found.append((chosen, gpus))
    return found
