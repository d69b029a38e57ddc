"""Draining a node as a plan: what it does to those who are served, and other places for its engines first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor
from controlplane.domain import evacuation, placement
from controlplane.domain.evacuation import Evacuation, Leaving
from controlplane.domain.impact import Live, Load
from controlplane.domain.rollout import Move
from controlplane.domain.types import PartitionView, Problem, Role
from controlplane.fleet import brake, owners, versions
from controlplane.fleet.errors import Refused
from controlplane.fleet.facts import deployment_view, node_view, partition_view
from controlplane.fleet.models import Change, Node, Partition
from controlplane.fleet.services import exclusive, nodes, rows, scenes
from controlplane.fleet.services.change_preview import look, refused_to
from controlplane.fleet.services.changes import apply_change
from controlplane.fleet.services.slots import is_half, is_ours


@dataclass(slots=True)
class _Drain:
    """One looked at."""

    node: Node
    leaving: list[Partition]
    found: Evacuation
    problems: list[Problem]

    @property
    def moves(self) -> list[Move]:
        by_id = {row.pk: row for row in self.leaving}
        return [
            Move(move.target.id, by_id[move.source.id].deployment_id, Role(by_id[move.source.id].role))
            for move in self.found.moves
        ]


def preview_drain(
    node_id: int,
    *,
    actor: Actor | None = None,
    move: bool = False,
    deadline_s: float | None = None,
    live: Live | None = None,
) -> dict[str, Any]:
    """What draining the node would do, changing nothing: the preview of a change, with `leaving`, its engines one by
    one. With `move` each gets another place first, where there is room; the change is those moves, and the drain is its
    last act. Without it nothing stands against a drain, and what is lost are warnings."""
    version, live = versions.current(), live or Live()
    drain = _look(rows.get(Node, node_id), move)
    plan = look(scenes.read(drain.moves, leaving=node_id), drain.moves, version=version, live=live, leaving=node_id)
    problems = [*(problem.to_dict() for problem in drain.problems), *plan["problems"]]
    if not move:
        plan["warnings"] = [*problems, *plan["warnings"]]
        problems = []
    shown = {
        **plan,
        "node": {"id": drain.node.pk, "name": drain.node.name},
        "deadline_s": deadline_s,
        "leaving": [_leaving(row, drain.found, live, deadline_s) for row in drain.leaving],
        "problems": problems,
        "forceable": bool(problems) and all(problem["forceable"] for problem in problems),
    }
    return refused_to(actor, shown, owners.of_moves(drain.moves, leaving=node_id))


@transaction.atomic
def drain_with_moves(
    node_id: int,
    *,
    actor: Actor,
    version: int | None = None,
    reason: str = "",
    deadline_s: float | None = None,
    force: bool = False,
    live: Live | None = None,
) -> Change | None:
    """Give the node's engines other places, and drain it once they are ready there. `force`: also where some find no
    room. None where none of them has to or can move: then it drains at once. `version` is the preview's; without it
    the fleet is taken as it is now."""
    nodes.require_deadline(deadline_s)
    version = versions.current() if version is None else version
    drain = _look(rows.get(Node, node_id), True)
    owners.require(actor, "node.cordon", *owners.of_moves(drain.moves, leaving=node_id))
    exclusive.require_free([row.pk for row in drain.leaving])
    if placement.blocking(drain.problems, force=force):
        raise Refused(drain.problems)
    if not drain.moves:
        nodes.drain(node_id, actor=actor, reason=reason, deadline_s=deadline_s)
        return None
    return apply_change(
        drain.moves, version=version, actor=actor, reason=reason, force=force, live=live,
        kind=Change.Kind.DRAIN, then_drain=node_id, drain_s=deadline_s,
    )  # fmt: skip


def _look(node: Node, move: bool) -> _Drain:
    leaving = list(
        node.partitions.filter(deployment__isnull=False)
        .select_related("node", "deployment__model")
        .prefetch_related("gpus")
        .order_by("name")
    )
    if not move:
        return _Drain(node, leaving, Evacuation((), ()), [])
    # What the pool lends ends here, and so does half a pair: both are given anew where they are needed.
    own = [row for row in leaving if not row.overflow and not is_half(row)]
    views = [
        Leaving(partition_view(row), deployment_view(row.deployment), Role(row.role), pooled=_is_pools(row))
        for row in own
    ]
    found = evacuation.evacuate(
        views, _free_places(node), peers=_peers(node, leaving), now=time.time(), silent_after_s=settings.SILENT_AFTER_S
    )
    # A pooled model that finds no other slot is woken when it is asked for, as any that leaves.
    woken = {row.pk for row in own if _is_pools(row)}
    found = replace(found, stranded=tuple(one for one in found.stranded if one.source.id not in woken))
    stranded = [one.problem for one in found.stranded]
    return _Drain(node, leaving, found, [*_node_problems(node), *stranded])


def _is_pools(row: Partition) -> bool:
    """Whether the pool put it there; a slot may also have a dedicated engine, or one that somebody pinned."""
    return row.pool and is_ours(row)


def _node_problems(node: Node) -> list[Problem]:
    problems = []
    if node.revoked:
        problems.append(Problem("node-revoked", f"{node.name} is revoked.", "Remove it and join it anew."))
    if node.draining:
        message = f"{node.name} drains already: its engines are ending."
        problems.append(Problem("node-draining", message, "Cancel the drain first, or let it end without moving."))
    if (braked := brake.state()).on:
        message = f"The brake is on: engines are not moved elsewhere while many nodes are silent. {braked.text}"
        problems.append(Problem("brake", message, "Release the brake, or drain without moving."))
    return problems


def _free_places(node: Node) -> list[evacuation.Place]:
    """Those that an open change is about to fill are not free."""
    taken = {
        move["partition"]["id"] for change in Change.objects.filter(state__in=exclusive.OPEN) for move in change.moves
    }
    free = Partition.objects.filter(deployment=None).exclude(node=node).exclude(pk__in=taken)
    views: dict[int, Any] = {}
    places = []
    for row in free.select_related("node").prefetch_related("gpus"):
        view = views.setdefault(row.node_id, node_view(row.node, gpus=(), partitions=()))
        places.append((partition_view(row), view))
    return places


def _peers(node: Node, leaving: Sequence[Partition]) -> dict[str, list[PartitionView]]:
    """The partitions that stay, by deployment."""
    stay = Partition.objects.filter(deployment__in={row.deployment_id for row in leaving}).exclude(node=node)
    peers: dict[str, list[PartitionView]] = {}
    for row in stay.select_related("node", "deployment").prefetch_related("gpus"):
        peers.setdefault(row.deployment.name, []).append(partition_view(row))
    return peers


def _leaving(row: Partition, found: Evacuation, live: Live, deadline_s: float | None) -> dict[str, Any]:
    move = next((move for move in found.moves if move.source.id == row.pk), None)
    stranded = next((one for one in found.stranded if one.source.id == row.pk), None)
    return {
        "partition": {"id": row.pk, "name": str(row)},
        "deployment": {"id": row.deployment_id, "name": row.deployment.name},
        "role": row.role,
        "gpus": len(row.gpus.all()),
        "in_flight": live.partitions.get(row.pk, Load()).in_flight,
        "drain_s": float(row.deployment.drain_s) if deadline_s is None else deadline_s,
        "to": {"id": move.target.id, "name": move.target.label} if move else None,
        "reasons": list(move.reasons) if move else [],
        "problem": stranded.problem.to_dict() if stranded else None,
    }
