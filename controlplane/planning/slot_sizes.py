"""How many slots a model takes, and how many GPUs each has: those of the smallest pool slot that holds its role."""

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
    """The GPUs of each slot that a model takes - of a pair two - by model, of those that some slots hold; `own`: the
    deployments that have partitions of their own."""

    slots: Mapping[str, tuple[int, ...]]
    own: frozenset[str]

    def split(self, models: Sequence[str]) -> dict[int, dict[int, int]]:
        """By size: the places of the models that take slots of it, with how many; none where each takes one of one
        GPU."""
        found: dict[int, dict[int, int]] = {}
        for place, name in enumerate(models):
            if name not in self.own:
                for gpus, count in Counter(self.slots.get(name, (ASSUMED,))).items():
                    found.setdefault(gpus, {})[place] = count
        alike = set(found) <= {1} and set(found.get(1, {}).values()) <= {1}
        return {} if alike else dict(sorted(found.items()))

    def assumed(self, models: Sequence[str]) -> int:
        """Of these, those whose size is not known."""
        return sum(name not in self.slots for name in models)


def read() -> Sizes:
    """As the fleet is now."""
    places = _kinds_of_slot()
    pooled = Deployment.objects.filter(mode=Deployment.Mode.POOLED).select_related("model")
    found = {one.name: slots for one in pooled if (slots := _slots(one, places))}
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


def _slots(deployment: Deployment, places: Sequence[tuple[PartitionView, NodeView]]) -> tuple[int, ...]:
    """Of a pair, decode has as many GPUs as prefill at least. Empty: one of its roles is held by none."""
    found: list[int] = []
    for role in deployment.pool_roles:
        if gpus := _smallest(deployment, role, [one for one in places if len(one[0].gpus) >= max(found, default=0)]):
            found.append(gpus)
    return tuple(found) if len(found) == len(deployment.pool_roles) else ()


def _smallest(deployment: Deployment, role: Role, places: Sequence[tuple[PartitionView, NodeView]]) -> int | None:
    view, now = deployment_view(deployment), time.time()
    for slot, node in places:
        problems = placement.check(slot, view, role, node=node, now=now)
        if all(problem.code.startswith(PASSING) for problem in problems):
            return len(slot.gpus)
    return None
