"""Which partitions to take when somebody says how many GPUs shall change their role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A partition that could be taken. Lower `rank` is taken sooner."""

    partition: int
    gpus: int
    rank: tuple[float, ...] = ()


def choose(candidates: Sequence[Candidate], gpus: int) -> list[int] | None:
    """Partitions with exactly so many GPUs together, the best-ranked ones; None where no set has that many."""
    ordered = sorted(candidates, key=lambda one: (one.rank, one.partition))
    best: dict[int, tuple[int, ...]] = {0: ()}  # GPUs -> places in `ordered`; the first found is the best-ranked
    for place, one in enumerate(ordered):
        for total, taken in sorted(best.items(), reverse=True):
            best.setdefault(total + one.gpus, (*taken, place))
    found = best.get(gpus)
    return None if found is None else [ordered[place].partition for place in found]


def possible(candidates: Sequence[Candidate]) -> list[int]:
    """The numbers of GPUs that can be taken, ascending, 0 left out."""
    sums = {0}
    for one in candidates:
        sums |= {total + one.gpus for total in sums}
    return sorted(sums - {0})
