"""The rows that a change concerns: its partitions, the deployments they leave and join with all their partitions, and
the nodes of all of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django.db.models import Q

from controlplane.domain import health
from controlplane.domain.impact import Objectives
from controlplane.domain.rollout import Move, Place
from controlplane.domain.types import PartitionView, Problem, Role
from controlplane.fleet.errors import Conflict, Invalid, NotFound
from controlplane.fleet.facts import partition_view
from controlplane.fleet.models import Deployment, Node, Partition

MOST_MOVES = 256


@dataclass(slots=True)
class Scene:
    """As read at one moment; with its locks held, as it stays."""

    partitions: dict[int, Partition]
    deployments: dict[int, Deployment]
    nodes: dict[int, Node]

    def places(self) -> dict[int, Place]:
        now = time.time()
        return {pk: _place(row, now) for pk, row in self.partitions.items()}

    def without(self, node: int | None, places: Mapping[int, Place]) -> dict[int, Place]:
        """The same once the engines of that node have ended. They are still assigned: it may be cancelled."""
        return {
            pk: Place(pk) if node is not None and self.partitions[pk].node_id == node else place
            for pk, place in places.items()
        }

    def gpus(self) -> dict[int, int]:
        return {pk: len(row.gpus.all()) for pk, row in self.partitions.items()}

    def objectives(self) -> dict[int, Objectives]:
        return {pk: _objectives(row) for pk, row in self.deployments.items()}

    def peers(self, move: Move, target: Sequence[Move]) -> list[PartitionView]:
        """The other partitions of the deployment that `move` goes to, as they will be in the end."""
        lanes = {other.partition: other for other in target}
        found = []
        for pk, row in self.partitions.items():
            wish = lanes.get(pk, Move(pk, row.deployment_id, Role(row.role) if row.role else None))
            if pk != move.partition and wish.deployment == move.deployment and wish.deployment is not None:
                name = self.deployments[wish.deployment].name
                found.append(replace(partition_view(row), deployment=name, role=wish.role))
        return found


def read(
    moves: Sequence[Move], also: Collection[int] = (), *, leaving: int | None = None, may_be_empty: bool = False
) -> Scene:
    """Without locks, for a preview. `also`: deployments that are concerned as well, where they still exist. `leaving`:
    a node whose engines go as well; what runs there belongs to it."""
    _require_sane(moves, may_be_empty=may_be_empty or leaving is not None)
    moved = {move.partition for move in moves}
    if leaving is not None:
        moved |= set(Partition.objects.filter(node=leaving, deployment__isnull=False).values_list("pk", flat=True))
    concerned = {move.deployment for move in moves} - {None}
    concerned |= set(
        Partition.objects.filter(pk__in=moved, deployment__isnull=False).values_list("deployment", flat=True)
    )
    wanted = concerned | set(also)
    rows = Partition.objects.filter(Q(pk__in=moved) | Q(deployment__in=wanted))
    rows = rows.select_related("node", "deployment__model").prefetch_related("gpus", "node__gpus").order_by("pk")
    partitions = {row.pk: row for row in rows}
    if missing := sorted(moved - partitions.keys()):
        raise NotFound("partition", missing[0])
    deployments = {row.pk: row for row in Deployment.objects.select_related("model").filter(pk__in=wanted)}
    if missing := sorted(concerned - deployments.keys()):
        raise NotFound("deployment", missing[0])
    return Scene(partitions, deployments, {row.node_id: row.node for row in partitions.values()})


def lock(
    moves: Sequence[Move], also: Collection[int] = (), *, leaving: int | None = None, beside: Collection[int] = ()
) -> Scene:
    """The same with deployments locked, then nodes, each in the order of their ids: two changes wait for each other in
    one order. `beside`: nodes to lock as well, for more than these moves. Conflict
    where the scene grew between the look and the lock."""
    seen = read(moves, also, leaving=leaving, may_be_empty=bool(beside))
    list(Deployment.objects.select_for_update().filter(pk__in=seen.deployments).order_by("pk"))
    list(Node.objects.select_for_update().filter(pk__in={*seen.nodes, *beside}).order_by("pk"))
    scene = read(moves, also, leaving=leaving, may_be_empty=bool(beside))
    if scene.deployments.keys() - seen.deployments.keys() or scene.nodes.keys() - seen.nodes.keys():
        raise Conflict("Somebody changed these partitions in this very moment.")
    for row in scene.partitions.values():
        row.node = scene.nodes[row.node_id]
    return scene


def _require_sane(moves: Sequence[Move], *, may_be_empty: bool) -> None:
    partitions = [move.partition for move in moves]
    problems = []
    if not (moves or may_be_empty) or len(moves) > MOST_MOVES:
        problems.append(Problem("moves", f"A change has 1 to {MOST_MOVES} moves.", "Say what shall change."))
    if len(set(partitions)) != len(partitions):
        problems.append(Problem("moved-twice", "A partition is moved twice.", "Give each partition one move."))
    if any((move.deployment is None) != (move.role is None) for move in moves):
        fix = "Give both, or neither to release the partition."
        problems.append(Problem("half-a-move", "A move has a deployment or a role without the other.", fix))
    if problems:
        raise Invalid(problems)


def _place(row: Partition, now: float) -> Place:
    view = partition_view(row)
    heard = not health.is_silent(view.node_last_seen, now, settings.SILENT_AFTER_S)
    serving = heard and not row.node.revoked and row.observed_role == row.role and health.is_confirmed(view)
    return Place(row.pk, row.deployment_id, view.role, serving=serving, lent=row.overflow)


def _objectives(row: Deployment) -> Objectives:
    return Objectives(
        name=row.name,
        slo_ttft_ms=row.slo_ttft_ms,
        slo_itl_ms=row.slo_itl_ms,
        lowest={role: getattr(row, f"min_{role.value}") for role in Role},
        highest={role: getattr(row, f"max_{role.value}") for role in Role},
        pooled=row.mode == Deployment.Mode.POOLED,
    )
