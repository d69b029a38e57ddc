"""Giving a node or a deployment owners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from controlplane.audit import roles
from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet import owners
from controlplane.fleet.errors import Invalid
from controlplane.fleet.models import Deployment, Node
from controlplane.fleet.owners import Kept
from controlplane.fleet.services import rows


@transaction.atomic
def set_node_owners(node_id: int, *, names: Iterable[str] | None, actor: Actor, reason: str = "") -> Node:
    """From now on only these users, and admins, may change the node. None: whoever's role allows it, as at first."""
    node = rows.lock_node(node_id)
    _set(node, names, actor, reason)
    return node


@transaction.atomic
def set_deployment_owners(
    deployment_id: int, *, names: Iterable[str] | None, actor: Actor, reason: str = ""
) -> Deployment:
    """The same of a deployment: its settings, and which partitions run it."""
    deployment = rows.lock_deployment(deployment_id)
    _set(deployment, names, actor, reason)
    return deployment


def who_can_own() -> list[str]:
    """Names of the people and programs that have the role for it and are no admins: those need not own anything."""
    found = get_user_model().objects.filter(is_active=True).prefetch_related("groups").order_by("username")
    return [user.get_username() for user in found if roles.role_of(user) == roles.Level.OPERATOR]


def _set(row: Kept, names: Iterable[str] | None, actor: Actor, reason: str) -> None:
    wanted = None if names is None else sorted(set(names))
    before = owners.names(row)
    if wanted == before:
        return
    users = _users(wanted or [])
    row.restricted = wanted is not None
    row.save(update_fields=["restricted"])
    row.owners.set(users)
    record(actor, "set-owners", row, before={"owners": before}, after={"owners": wanted}, reason=reason)


def _users(names: list[str]) -> list[Any]:
    found = {user.get_username(): user for user in get_user_model().objects.filter(username__in=names)}
    problems = [_unknown(name) for name in names if name not in found]
    problems += [_too_low(name) for name, user in found.items() if roles.role_of(user) < roles.Level.OPERATOR]
    if problems:
        raise Invalid(problems)
    return list(found.values())


def _unknown(name: str) -> Problem:
    return Problem("unknown-user", f"There is no user {name}.", "Give the name that the user signs in with.")


def _too_low(name: str) -> Problem:
    message = f"{name} is no operator, and an owner without the role could change nothing."
    return Problem("role-too-low", message, "Make the user an operator first.")
