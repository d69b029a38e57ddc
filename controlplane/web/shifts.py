"""Moving N GPUs of a model from one role to another: which ways there are, and how many GPUs can go each way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.domain.impact import Live
from controlplane.fleet.models import Deployment, Partition
from workers.contract import Role

MOST_GPUS = 512  # sums beyond it are not listed


@dataclass(frozen=True, slots=True)
class Lane:
    """One role of one deployment, with its load now. None: nobody tells."""

    role: Role
    engines: int
    sizes: tuple[int, ...]  # GPUs of each partition
    running: float | None
    waiting: float | None


@dataclass(frozen=True, slots=True)
class Way:
    deployment: Deployment
    source: Lane
    target: Lane

    @property
    def least(self) -> int:
        return min(self.source.sizes)


def ways(deployments: Iterable[Deployment], partitions: Sequence[Partition], live: Live) -> list[Way]:
    """Every direction that has an engine to give. Into `aggregated` only where that role is used already."""
    found = []
    for deployment in deployments:
        lanes = _lanes([row for row in partitions if row.deployment_id == deployment.pk], live)
        for source in lanes:
            targets = [lane for lane in lanes if lane.role != source.role]
            useful = [lane for lane in targets if lane.role is not Role.AGGREGATED or lane.engines]
            found += [Way(deployment, source, target) for target in useful if source.engines]
    return found


def counts(sizes: Sequence[int]) -> list[int]:
    """How many GPUs whole partitions of these sizes can make up: 2, 2 and 4 give 2, 4, 6, 8."""
    sums = {0}
    for size in sizes:
        sums |= {total + size for total in sums if total + size <= MOST_GPUS}
    return sorted(sums - {0})


def _lanes(rows: Sequence[Partition], live: Live) -> list[Lane]:
    by_role: dict[str, list[Partition]] = defaultdict(list)
    for row in rows:
        by_role[row.role].append(row)
    return [_lane(role, by_role[role.value], live) for role in Role]


def _lane(role: Role, rows: Sequence[Partition], live: Live) -> Lane:
    loads = [live.partitions[row.pk] for row in rows if row.pk in live.partitions]
    return Lane(
        role=role,
        engines=len(rows),
        sizes=tuple(len(row.gpus.all()) for row in rows),
        running=_sum(load.running for load in loads),
        waiting=_sum(load.waiting for load in loads),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
