"""Who a REST token stands for, and how far."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from controlplane.audit import roles
from controlplane.audit.models import TokenGrant
from controlplane.audit.roles import Level

SWEEP_EVERY_S = 60.0


class Bearer(TokenAuthentication):
    """`Authorization: Token ...`"""

    _swept: ClassVar[dict[int, float]] = {}  # by user: when this process last looked

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        if not token.isascii() or not token.decode().isprintable():  # no database need be asked for it
            raise AuthenticationFailed("Invalid token.")
        user, found = super().authenticate_credentials(token)
        scope = TokenGrant.objects.filter(token=found).values_list("scope", flat=True).first()
        roles.limit(user, roles.SCOPES.get(scope, Level.NONE))
        return user, found

    def _cleanup_token(self, auth_token: Any) -> bool:
        """True where it has expired. The user's other tokens are looked through for such once a minute: at each request
        it would cost more than finding the one that was sent."""
        now, user = time.monotonic(), auth_token.user_id
        is_live = auth_token.expiry is None or auth_token.expiry >= timezone.now()
        if is_live and now - self._swept.get(user, -SWEEP_EVERY_S) < SWEEP_EVERY_S:
            return False
        self._swept[user] = now
        return super()._cleanup_token(auth_token)


def holder(header: bytes) -> Any:
    """The user behind an Authorization header; nobody if it opens nothing."""
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"token":
        return AnonymousUser()
    try:
        return Bearer().authenticate_credentials(token.strip())[0]
    except AuthenticationFailed:
        return AnonymousUser()
