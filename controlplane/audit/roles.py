"""What each role may do: one table for pages, REST and websockets. A role is a Django group of that name."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class Level(IntEnum):
    NONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


ROLES = {"viewer": Level.VIEWER, "operator": Level.OPERATOR, "admin": Level.ADMIN}

ACTIONS = {
    "view": Level.VIEWER,
    "playground": Level.OPERATOR,
    "model.register": Level.OPERATOR,
    "model.delete": Level.OPERATOR,
    "deployment.change": Level.OPERATOR,
    "deployment.delete": Level.OPERATOR,
    "partition.change": Level.OPERATOR,
    "partition.assign": Level.OPERATOR,
    "node.cordon": Level.OPERATOR,
    "node.change": Level.OPERATOR,
    "node.join": Level.ADMIN,
    "node.revoke": Level.ADMIN,
    "node.remove": Level.ADMIN,
    "key.manage": Level.ADMIN,
    "user.manage": Level.ADMIN,
    "spec.secrets": Level.ADMIN,
}


def level_of(user: AbstractBaseUser | AnonymousUser) -> Level:
    """The highest role among the user's groups; a superuser is an admin; nobody else has any."""
    if not user.is_authenticated or not user.is_active:
        return Level.NONE
    if user.is_superuser:
        return Level.ADMIN
    names = user.groups.values_list("name", flat=True)
    return max((ROLES[name] for name in names if name in ROLES), default=Level.NONE)


def allows(user: AbstractBaseUser | AnonymousUser, action: str) -> bool:
    """Whether `user` may do `action`; an action that is not in the table raises KeyError."""
    return level_of(user) >= ACTIONS[action]
