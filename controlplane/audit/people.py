"""Accounts and their roles. The last admin can be neither demoted nor disabled: somebody must hold the keys."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction

from controlplane.audit import tokens
from controlplane.audit.models import ServiceAccount
from controlplane.audit.roles import ROLES, Level, role_of
from controlplane.audit.services import Actor, record
from controlplane.domain.problems import DomainError, Problem

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@transaction.atomic
def create_user(*, username: str, role: str, password: str = "", actor: Actor) -> tuple[User, str]:
    """A new account and its password: the given one, else a made one to be shown once."""
    plain = password or secrets.token_urlsafe(12)
    _require_password(plain)
    user = new_user(username=username, role=role, password=plain)
    record(actor, "create-user", user, after={"role": role})
    return user, plain


def new_user(*, username: str, role: str, password: str | None = None) -> User:
    """The row alone, for those who record what it is. Without a password none will ever fit."""
    _require_role(role)
    model = get_user_model()
    if model.objects.filter(username__iexact=username).exists():
        _refuse("user-exists", f"There is a user {username} already.", "Choose another name.")
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        _refuse("user-name", " ".join(error.messages), "Use letters, digits and @ . + - _ only.")
    user = model.objects.create_user(username=username, password=password)
    user.groups.add(_group(role))
    return user


def is_service(user: User) -> bool:
    return ServiceAccount.objects.filter(user_id=user.pk).exists()


@transaction.atomic
def set_role(user_id: int, *, role: str, actor: Actor) -> User:
    """The user's one role from now on."""
    _require_role(role)
    user = _lock(user_id)
    if user.is_superuser and ROLES[role] < Level.ADMIN:
        _refuse("superuser", f"{user} is a superuser, and so an admin in any role.", "Disable the account instead.")
    before = role_of(user).name.lower()
    if before == role:
        return user
    if ROLES[role] < Level.ADMIN:
        _require_another_admin(user)
    user.groups.remove(*user.groups.filter(name__in=ROLES))
    user.groups.add(_group(role))
    record(actor, "set-role", user, before={"role": before}, after={"role": role})
    return user


@transaction.atomic
def create_signed_on(*, username: str, role: str, actor: Actor) -> User:
    """The account of one who signs in elsewhere: there is no password here."""
    user = new_user(username=username, role=role)
    record(actor, "create-user", user, after={"role": role, "by": "single sign-on"})
    return user


@transaction.atomic
def follow_groups(user_id: int, *, role: str, actor: Actor) -> User:
    """The role that the groups give at this sign-on; "" takes it away, and with it what the account's tokens open.
    The last admin too: who runs the provider decides, and `manage.py create_admin` makes another."""
    user = _lock(user_id)
    before = role_of(user).name.lower()
    if before == (role or "none") or user.is_superuser:
        return user
    user.groups.remove(*user.groups.filter(name__in=ROLES))
    if role:
        user.groups.add(_group(role))
    after = {"role": role or "none"}
    record(actor, "set-role", user, before={"role": before}, after=after, reason="groups at single sign-on")
    return user


@transaction.atomic
def set_active(user_id: int, *, active: bool, actor: Actor) -> User:
    """A disabled user's sessions and tokens open nothing from the next request on."""
    user = _lock(user_id)
    if user.is_active == active:
        return user
    if not active:
        _require_another_admin(user)
    user.is_active = active
    user.save(update_fields=["is_active"])
    record(
        actor,
        "enable-user" if active else "disable-user",
        user,
        before={"active": not active},
        after={"active": active},
    )
    return user


@transaction.atomic
def set_password(user_id: int, *, password: str = "", actor: Actor) -> tuple[User, str]:
    """A new password: the given one, else a made one to be shown once. It ends the user's sessions and REST tokens:
    whoever knew the old one may hold some."""
    user = _lock(user_id)
    if is_service(user):
        _refuse("service-account", f"{user} is a service account and has no password.", "Issue a token for it.")
    plain = password or secrets.token_urlsafe(12)
    _require_password(plain, user)
    user.set_password(plain)
    user.save(update_fields=["password"])
    tokens.revoke(tokens.of(user), actor=actor)
    record(actor, "set-password", user)
    return user, plain


def _lock(user_id: int) -> User:
    user = get_user_model().objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        _refuse("user-unknown", f"There is no user {user_id}.", "List them again.")
    return user


def _group(role: str) -> Group:
    return Group.objects.get_or_create(name=role)[0]


def _require_role(role: str) -> None:
    if role not in ROLES:
        _refuse("role-unknown", f"{role!r} is no role.", f"Use {', '.join(ROLES)}.")


def _require_password(plain: str, user: User | None = None) -> None:
    try:
        validate_password(plain, user)
    except ValidationError as error:
        _refuse("password", " ".join(error.messages), "Choose a longer or less common one.")


def _require_another_admin(user: User) -> None:
    """All accounts are locked in one order, so that two admins cannot demote each other at once. A program is no such
    other: nobody can sign in as it."""
    people = get_user_model().objects.select_for_update(of=("self",)).filter(is_active=True, service=None)
    others = people.exclude(pk=user.pk).order_by("pk")
    if role_of(user) == Level.ADMIN and not any(role_of(other) == Level.ADMIN for other in others):
        _refuse("last-admin", f"{user} is the only admin.", "Make another user an admin first.")


def _refuse(code: str, message: str, fix: str) -> None:
    raise DomainError(Problem(code, message, fix))
