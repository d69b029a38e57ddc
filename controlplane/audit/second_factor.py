"""Codes from an authenticator app (TOTP) and recovery codes, for those who sign in with a password."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from allauth.mfa import signals
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base.forms import BaseAuthenticateForm
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from controlplane.audit import roles
from controlplane.audit.requests import actor_of
from controlplane.audit.services import Actor, record

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TOTP = Authenticator.Type.TOTP
CALLED = {TOTP: "authenticator app", Authenticator.Type.RECOVERY_CODES: "recovery codes"}


class Authenticators(DefaultMFAAdapter):
    """Keeps secrets encrypted: whoever reads the database, or a backup of it, cannot make codes."""

    def encrypt(self, text: str) -> str:
        return _box().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _box().decrypt(encrypted_text.encode()).decode()

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        return not roles.must_have_second_factor(authenticator.user)


def has(user: User) -> bool:
    return Authenticator.objects.filter(user_id=user.pk, type=TOTP).exists()


def passes(user: User, code: str) -> bool:
    """Whether `code` is right now one of this user's, and none that was used before. Tries are counted."""
    form = BaseAuthenticateForm(user=user, data={"code": code})
    if not form.is_valid():
        return False
    form.authenticator.record_usage()
    return True


@transaction.atomic
def reset(user: User, *, actor: Actor) -> bool:
    """Take the second factor and the recovery codes away, for one who lost them. Whether there was any."""
    ended = Authenticator.objects.select_for_update().filter(user_id=user.pk)
    kinds = sorted(CALLED[kind] for kind in ended.values_list("type", flat=True))
    if not kinds:
        return False
    ended.delete()
    record(actor, "reset-second-factor", user, before={"second_factor": kinds}, after={"second_factor": []})
    return True


def listen() -> None:
    """allauth's own pages change the second factor, and tell of it by signals alone."""
    signals.authenticator_added.connect(_added)
    signals.authenticator_removed.connect(_removed)
    signals.authenticator_reset.connect(_renewed)


def _added(request: HttpRequest, user: User, authenticator: Authenticator, **_: Any) -> None:
    record(actor_of(request, "web"), "add-second-factor", user, after={"kind": CALLED[authenticator.type]})


def _removed(request: HttpRequest, user: User, authenticator: Authenticator, **_: Any) -> None:
    record(actor_of(request, "web"), "remove-second-factor", user, before={"kind": CALLED[authenticator.type]})


def _renewed(request: HttpRequest, user: User, **_: Any) -> None:
    record(actor_of(request, "web"), "renew-recovery-codes", user)


def _box() -> Fernet:
    key = hashlib.sha256(b"forebay second factor " + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
