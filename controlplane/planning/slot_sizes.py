"""How many GPUs a model's slot has: those of the smallest pool slot that holds its deployment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain import placement
from controlplane.domain.reservation import nodes
from controlplane.domain.types import NodeView, PartitionView, Role
from controlplane.fleet.facts import deployment_view, node_view, partition_view
from controlplane.fleet.models import Deployment, Gpu, Partition
from controlplane.fleet.services import slots

ASSUMED = 1  # GPUs of a model that has no deployment, as of an imported history, or that no slot holds
PASSING = "node-"  # what a node refuses for now, as while it is silent, says nothing of the size of a slot


@dataclass(frozen=True, slots=True)
class Sizes:
    """GPUs by model, of those that some slot holds; `own`: the deployments that have partitions of their own."""

    gpus: Mapping[str, int]
    own: frozenset[str]

    def split(self, models: Sequence[str]) -> dict[int, list[int]]:
        """Places of the models that take slots, by size; none where every slot is of one GPU."""
        found: dict[int, list[int]] = {}
        for place, name in enumerate(models):
            if name not in self.own:
                found.setdefault(self.gpus.get(name, ASSUMED), []).append(place)
        return {} if set(found) <= {1} else dict(sorted(found.items()))

    def assumed(self, models: Sequence[str]) -> int:
        """Of these, those whose size is not known."""
        return sum(name not in self.gpus for name in models)


def read() -> Sizes:
    """As the fleet is now."""
    places = _kinds_of_slot()
    pooled = Deployment.objects.filter(mode=Deployment.Mode.POOLED).select_related("model")
    found = {one.name: gpus for one in pooled if (gpus := _smallest(one, places)) is not None}
    own = Deployment.objects.filter(mode=Deployment.Mode.DEDICATED).values_list("name", flat=True)
    return Sizes(found, frozenset(own))


def there() -> dict[int, int]:
    """Slots of the pool by their GPUs."""
    found = Partition.objects.filter(pool=True).values_list("pk", "gpus")
    return dict(sorted(Counter(Counter(pk for pk, gpu in found if gpu is not None).values()).items()))


def packed(wanted: Mapping[int, int]) -> tuple[int, int] | None:
    """(nodes, GPUs of each): the fewest nodes, as most of the pool's are or else of the fleet's, that hold these slots
    by their GPUs; None without GPUs."""
    every = Gpu.objects.all()
    pool = every.filter(node__partitions__pool=True).distinct()
    for rows in (pool, every):
        sizes = Counter(Counter(rows.values_list("node", flat=True)).values())
        if sizes:
            most = max(sizes, key=lambda size: (sizes[size], size))
            return nodes(wanted, most), most
    return None


def _kinds_of_slot() -> list[tuple[PartitionView, NodeView]]:
    """One of each kind, the smallest first: slots of the same GPUs hold the same models."""
    kinds: dict[object, tuple[PartitionView, NodeView]] = {}
    for row in slots.rows():
        view = partition_view(row)
        if view.gpus:
            kinds.setdefault(_alike(view), (view, node_view(row.node, gpus=(), partitions=())))
    return sorted(kinds.values(), key=lambda one: len(one[0].gpus))


def _alike(view: PartitionView) -> object:
    gpus = tuple((gpu.kind, gpu.memory_bytes, gpu.health, gpu.flag, gpu.foreign, gpu.present) for gpu in view.gpus)
    return gpus, view.engine_version


def _smallest(deployment: Deployment, places: Sequence[tuple[PartitionView, NodeView]]) -> int | None:
    view, now = deployment_view(deployment), time.time()
    for slot, node in places:
        problems = placement.check(slot, view, Role.AGGREGATED, node=node, now=now)
        if all(problem.code.startswith(PASSING) for problem in problems):
            return len(slot.gpus)
    return None
