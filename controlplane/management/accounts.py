"""The first administrator and the API key of this machine: made once, never printed again unless asked for."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth import get_user_model

from controlplane.audit import people, second_factor
from controlplane.audit.roles import Level, role_of
from controlplane.audit.services import Actor
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey
from controlplane.management.valkey import write_private

ACTOR = Actor.system("make run")


def ensure_admin(username: str = "admin") -> str | None:
    """Make the administrator if nobody can administer yet. The password, or None when somebody can."""
    active = get_user_model().objects.filter(is_active=True, service=None)
    if any(role_of(user) == Level.ADMIN for user in active):
        return None
    return make_admin(username, actor=ACTOR)


def make_admin(username: str, *, actor: Actor) -> str:
    """Make `username` an active administrator, known or not, with a new random password and no second factor, which may
    be lost with the rest; says the password."""
    user = get_user_model().objects.filter(username=username).first()
    if user is None:
        return people.create_user(username=username, role="admin", actor=actor)[1]
    people.set_active(user.pk, active=True, actor=actor)
    people.set_role(user.pk, role="admin", actor=actor)
    second_factor.reset(user, actor=actor)
    return people.set_password(user.pk, actor=actor)[1]


def ensure_api_key(home: Path) -> str:
    """The key kept in the home folder, made anew when it is missing or no longer lawful."""
    path = home / "api_key"
    if path.exists():
        kept = path.read_text().strip()
        if ApiKey.objects.filter(key_hash=gateway.hash_of(kept), revoked_at=None).exists():
            return kept
    _, plain = gateway.create_key(name="this machine", actor=ACTOR)
    write_private(path, plain + "\n")
    return plain
