"""Tokens for REST. One is worth no more than its user and its scope, always expires, and is shown once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from knox.models import AuthToken

from controlplane.audit import roles
from controlplane.audit.models import TokenGrant
from controlplane.audit.services import Actor, record
from controlplane.domain.problems import DomainError, Problem

DAY_S = 24 * 3600
MAX_TTL_S = 366 * DAY_S


@transaction.atomic
def issue(*, user: Any, ttl_s: int, actor: Actor, scope: str = "", name: str = "") -> tuple[AuthToken, str]:
    """A token of `user` and its plain text, to be shown once. Without a scope it is good for all the role allows."""
    scope = _lawful(scope, user)
    token, plain = AuthToken.objects.create(user, expiry=timedelta(seconds=ttl_s))
    TokenGrant.objects.create(token=token, scope=scope, name=name)
    record(actor, "issue-token", user, after=_audited(token))
    return token, plain


@transaction.atomic
def revoke(tokens: QuerySet[AuthToken], *, actor: Actor) -> int:
    """End these tokens; how many they were."""
    ended = list(tokens.select_for_update(of=("self",)))
    for token in ended:
        record(actor, "revoke-token", token.user, before=_audited(token))
        token.delete()
    return len(ended)


def of(user: Any) -> QuerySet[AuthToken]:
    """Those of one user that have not expired, newest first."""
    lasting = Q(expiry=None) | Q(expiry__gt=timezone.now())
    return AuthToken.objects.filter(lasting, user=user).select_related("grant").order_by("-created")


def scopes_for(user: Any) -> list[str]:
    """The scopes that a token of this user can have."""
    return [scope for scope, level in roles.SCOPES.items() if level <= roles.role_of(user)]


def _lawful(scope: str, user: Any) -> str:
    lawful = scopes_for(user)
    if not scope and lawful:
        return lawful[-1]
    if scope not in lawful:
        message = f"{user} cannot have a token of scope {scope or 'read'}: the role is less than that."
        fix = f"Choose {' or '.join(lawful)}." if lawful else "Give the account a role first."
        raise DomainError(Problem("token-scope", message, fix))
    return scope


def _audited(token: AuthToken) -> dict[str, Any]:
    grant = getattr(token, "grant", None)
    facts = {"token": token.token_key[:8], "expires_at": token.expiry.isoformat() if token.expiry else None}
    return facts | ({"scope": grant.scope, "name": grant.name} if grant else {})
