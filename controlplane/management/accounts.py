"""The first administrator and the API key of this machine: made once, never printed again unless asked for."""

from __future__ import annotations

import secrets
from pathlib import Path

from django.contrib.auth import get_user_model

from controlplane.audit.services import Actor, record
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey
from controlplane.management.valkey import write_private

ACTOR = Actor.system("make run")


def ensure_admin(username: str = "admin") -> str | None:
    """Make the administrator if nobody can administer yet. The password, or None when somebody can."""
    users = get_user_model().objects
    if users.filter(is_superuser=True, is_active=True).exists():
        return None
    return set_admin_password(username)


def set_admin_password(username: str, *, actor: Actor = ACTOR) -> str:
    """Make `username` an administrator with a new random password; says the password."""
    user, created = get_user_model().objects.get_or_create(username=username)
    user.is_superuser = user.is_staff = user.is_active = True
    user.set_password(password := secrets.token_urlsafe(15))
    user.save()
    record(actor, "create" if created else "reset password", user)
    return password


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
