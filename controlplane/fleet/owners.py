"""Who may change this node, this deployment: everybody whose role allows it, or only its owners and admins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db.models import Q

from controlplane.audit import roles
from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.domain.types import Problem
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Deployment, Node, Partition

Kept = Node | Deployment


class NotOwner(FleetError):
    """The role would allow it, but not on this."""

    status = 403
    code = "not-owner"
    title = "Kept by its owners"


def require(actor: Actor, action: str, *kept: Kept | None) -> None:
    """NotOwner where one of them is kept by others; None is passed over. Call it with the rows locked."""
    if found := problems(actor, action, kept):
        raise NotOwner(found)


def require_partition(actor: Actor, action: str, partition: Partition, *more: Kept) -> None:
    """The same of where it lies and of what it runs now."""
    require(actor, action, partition.node, partition.deployment, *more)


def problems(actor: Actor | None, action: str, kept: Iterable[Kept | None]) -> list[Problem]:
    """What agents, commands and background tasks do is never theirs to refuse: they only carry out."""
    if action not in roles.OWNED:
        raise KeyError(f"{action} heeds no owners")
    if actor is None or actor.user is None or roles.level_of(actor.user) >= roles.Level.ADMIN:
        return []
    shut = dict.fromkeys(row for row in kept if row is not None and row.restricted)
    return [_problem(row) for row in shut if not row.owners.filter(pk=actor.user.pk).exists()]


def of_moves(moves: Sequence[Move], *, leaving: int | None = None) -> list[Kept]:
    """Those that are restricted among the nodes where something moves, and the deployments that lose or gain by it.
    `leaving`: a node that is drained."""
    moved = [move.partition for move in moves]
    own = Q(partitions__pk__in=moved)
    there = own | Q(partitions__node=leaving) | Q(pk__in=[move.deployment for move in moves if move.deployment])
    nodes = Node.objects.filter(own | Q(pk=leaving), restricted=True).distinct()
    return [*nodes, *Deployment.objects.filter(there, restricted=True).distinct()]


def names(row: Kept) -> list[str] | None:
    """User names in order; None: every operator. Prefetch `owners` for many rows."""
    return sorted(user.get_username() for user in row.owners.all()) if row.restricted else None


def _problem(row: Kept) -> Problem:
    held = names(row) or []
    who = f"{', '.join(held)} and admins" if held else "admins"
    message = f"Only {who} may change {row._meta.verbose_name} {row.name}."
    return Problem("not-owner", message, "Ask one of them to do it, or an admin to make you an owner.")
