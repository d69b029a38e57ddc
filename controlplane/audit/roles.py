"""What each role may do: one table for pages, REST and websockets. A role is a Django group of that name."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class Level(IntEnum):
    NONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


ROLES = {"viewer": Level.VIEWER, "operator": Level.OPERATOR, "admin": Level.ADMIN}
SCOPES = {"read": Level.VIEWER, "operate": Level.OPERATOR, "admin": Level.ADMIN}  # of a token: the most it is good for

ACTIONS = {
    "view": Level.VIEWER,
    "playground": Level.OPERATOR,
    "log.system": Level.OPERATOR,
    "model.register": Level.OPERATOR,
    "model.delete": Level.OPERATOR,
    "deployment.change": Level.OPERATOR,
    "deployment.delete": Level.OPERATOR,
    "profile.change": Level.OPERATOR,
    "partition.change": Level.OPERATOR,
    "partition.assign": Level.OPERATOR,
    "node.cordon": Level.OPERATOR,
    "node.change": Level.OPERATOR,
    "brake.release": Level.OPERATOR,
    "capacity.change": Level.OPERATOR,
    "capacity.compare": Level.OPERATOR,
    "capacity.import": Level.OPERATOR,
    "alert.acknowledge": Level.OPERATOR,
    "alert.silence": Level.OPERATOR,
    "alert.configure": Level.ADMIN,
    "node.join": Level.ADMIN,
    "node.revoke": Level.ADMIN,
    "node.remove": Level.ADMIN,
    "owners.change": Level.ADMIN,
    "deployment.trust": Level.ADMIN,
    "key.manage": Level.ADMIN,
    "team.manage": Level.ADMIN,
    "price.set": Level.ADMIN,
    "user.manage": Level.ADMIN,
    "spec.secrets": Level.ADMIN,
}
# of these the owners of what is touched are left, where an admin gave it owners: see fleet.owners
OWNED = {
    "deployment.change", "deployment.delete", "partition.change", "partition.assign", "node.cordon", "node.change",
}  # fmt: skip


def level_of(user: AbstractBaseUser | AnonymousUser) -> Level:
    """What this user may do here and now: by the role, but no more than the token allows that the user came with, nor
    than is open without a second factor."""
    level = min(role_of(user), ceiling_of(user))
    if lacks_second_factor(user):
        return min(level, Level(ROLES[settings.REQUIRE_TOTP] - 1))
    return level


def role_of(user: AbstractBaseUser | AnonymousUser) -> Level:
    """The highest role among the user's groups; a superuser is an admin; nobody else has any."""
    if not user.is_authenticated or not user.is_active:
        return Level.NONE
    if user.is_superuser:
        return Level.ADMIN
    names = getattr(user, "held_groups", None)  # read with the token
    if names is None:
        names = user.groups.values_list("name", flat=True)
    return max((ROLES[name] for name in names if name in ROLES), default=Level.NONE)


def must_have_second_factor(user: AbstractBaseUser | AnonymousUser) -> bool:
    """By FOREBAY_REQUIRE_TOTP. Programs and those who sign in elsewhere have no password to add one to."""
    required = settings.REQUIRE_TOTP
    return bool(required) and role_of(user) >= ROLES[required] and user.has_usable_password()


def lacks_second_factor(user: AbstractBaseUser | AnonymousUser) -> bool:
    if not must_have_second_factor(user):
        return False
    held = apps.get_model("mfa", "Authenticator").objects.filter(user_id=user.pk, type="totp")
    return not held.exists()


def limit(user: AbstractBaseUser, ceiling: Level) -> None:
    """For as long as this object lives, which is one request or one look at a socket's user."""
    user.ceiling = ceiling  # type: ignore[attr-defined]


def allows(user: AbstractBaseUser | AnonymousUser, action: str) -> bool:
    """Whether `user` may do `action`; an action that is not in the table raises KeyError."""
    return level_of(user) >= ACTIONS[action]


def refusal(user: AbstractBaseUser | AnonymousUser, action: str) -> str:
    """Why `allows` said no."""
    needed, role = ACTIONS[action], role_of(user)
    if role >= needed and ceiling_of(user) >= needed:
        return f"This needs a second factor ({action}): set up an authenticator app under Settings first."
    if role >= needed:
        return f"This needs a token of scope {scope_of(needed)} ({action}); yours is {scope_of(ceiling_of(user))}."
    held = "no role" if role == Level.NONE else role.name.lower()
    return f"This needs the role {needed.name.lower()} ({action}); you have {held}."


def scope_of(level: Level) -> str:
    """The scope that is worth as much as this level."""
    return next((scope for scope, worth in SCOPES.items() if worth == level), "none")


def ceiling_of(user: AbstractBaseUser | AnonymousUser) -> Level:
    return getattr(user, "ceiling", Level.ADMIN)
