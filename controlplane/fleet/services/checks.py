"""What stands against an assignment, what becomes of the engine, and how long engines take to start."""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import median

from django.conf import settings
from django.db.models import F

from controlplane.domain import placement
from controlplane.domain.impact import Action
from controlplane.domain.types import PartitionView, Problem, Role
from controlplane.fleet import starts
from controlplane.fleet.facts import deployment_view, has_process, node_view, partition_view
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.publish import replica_spec
from workers.contract import Phase


def obstacles(
    partition: Partition, deployment: Deployment, role: Role, peers: Iterable[PartitionView] | None = None
) -> list[Problem]:
    """Why this role can't run there. `peers`: the deployment's other partitions, where they are not as they are now."""
    if peers is None:
        others = deployment.partitions.exclude(pk=partition.pk)
        rows = others.select_related("node", "deployment").prefetch_related("gpus")
        peers = [partition_view(peer) for peer in rows]
    return placement.check(
        partition_view(partition),
        deployment_view(deployment),
        role,
        node=node_view(partition.node),
        peers=list(peers),
        now=time.time(),
        silent_after_s=settings.SILENT_AFTER_S,
    )


def action(partition: Partition, deployment: Deployment | None, role: str) -> Action:
    """What becomes of the partition's engine: see domain.impact.Action."""
    if (partition.deployment_id, partition.role) == (deployment.pk if deployment else None, role):
        return Action.NONE
    if deployment is None:
        return Action.STOP
    if not has_process(partition):
        return Action.START
    if partition.deployment_id != deployment.pk or partition.phase != Phase.READY:
        return Action.REPLACE
    changed = Partition.objects.select_related("deployment__model").prefetch_related("gpus").get(pk=partition.pk)
    old = replica_spec(changed).content()
    changed.role = role
    return Action.RELABEL if replica_spec(changed).content() == old else Action.REPLACE


def usual_start_s(deployment: Deployment, node: Node | None = None) -> float | None:
    """The median of its replicas' last starts, as measured on their nodes; their engines must be this deployment's.
    While it has none, that of its model's recent starts on `node`."""
    own = deployment.partitions.filter(observed_generation=F("generation"), ready_after_s__isnull=False)
    measured = list(own.order_by().values_list("ready_after_s", flat=True))
    if not measured and node is not None:
        return starts.start_s(deployment.model, node)
    return median(measured) if measured else None
