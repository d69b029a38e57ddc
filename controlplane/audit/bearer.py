"""Who a REST token stands for, and how far."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from controlplane.audit import roles
from controlplane.audit.models import TokenGrant
from controlplane.audit.roles import Level


class Bearer(TokenAuthentication):
    """`Authorization: Token ...`"""

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        if not token.isascii() or not token.decode().isprintable():  # no database need be asked for it
            raise AuthenticationFailed("Invalid token.")
        user, found = super().authenticate_credentials(token)
        scope = TokenGrant.objects.filter(token=found).values_list("scope", flat=True).first()
        roles.limit(user, roles.SCOPES.get(scope, Level.NONE))
        return user, found


def holder(header: bytes) -> Any:
    """The user behind an Authorization header; nobody if it opens nothing."""
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"token":
        return AnonymousUser()
    try:
        return Bearer().authenticate_credentials(token.strip())[0]
    except AuthenticationFailed:
        return AnonymousUser()
