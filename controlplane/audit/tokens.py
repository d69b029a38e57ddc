"""Tokens for REST. One is worth no more than its user, always expires, and is shown once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from knox.models import AuthToken

from controlplane.audit.services import Actor, record


@transaction.atomic
def issue(*, ttl_s: int, actor: Actor) -> tuple[AuthToken, str]:
    token, plain = AuthToken.objects.create(actor.user, expiry=timedelta(seconds=ttl_s))
    record(actor, "issue-token", actor.user, after=_audited(token))
    return token, plain


@transaction.atomic
def revoke(tokens: QuerySet[AuthToken], *, actor: Actor) -> int:
    """End these tokens; how many they were."""
    ended = list(tokens.select_for_update())
    for token in ended:
        record(actor, "revoke-token", token.user, before=_audited(token))
        token.delete()
    return len(ended)


def of(user: Any) -> QuerySet[AuthToken]:
    """Those of one user that have not expired, newest first."""
    return AuthToken.objects.filter(Q(expiry=None) | Q(expiry__gt=timezone.now()), user=user).order_by("-created")


def _audited(token: AuthToken) -> dict[str, Any]:
    return {"token": token.token_key[:8], "expires_at": token.expiry.isoformat() if token.expiry else None}
