"""Who a REST token stands for, and how far."""

from __future__ import annotations

import binascii
import time
from hmac import compare_digest
from typing import Any, ClassVar

from django.contrib.auth.models import AnonymousUser, User
from django.db import connection
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed

from controlplane.audit import roles
from controlplane.audit.models import TokenGrant
from controlplane.audit.roles import Level

SWEEP_EVERY_S = 60.0
OF_USER = ("id", "password", "is_superuser", "username", "email", "is_staff", "is_active")  # in the model's order
# All that an answer needs of who asks, at once: as four queries of the ORM it costs more than most answers do.
LIVE = """
    SELECT t.digest, g.scope, r.name, u.id, u.password, u.is_superuser, u.username, u.email, u.is_staff, u.is_active
    FROM knox_authtoken t JOIN auth_user u ON u.id = t.user_id
    LEFT JOIN audit_tokengrant g ON g.token_id = t.digest
    LEFT JOIN auth_user_groups m ON m.user_id = u.id LEFT JOIN auth_group r ON r.id = m.group_id
    WHERE t.token_key = %s AND u.is_active AND (t.expiry IS NULL OR t.expiry >= %s)
"""


class Bearer(TokenAuthentication):
    """`Authorization: Token ...`"""

    _swept: ClassVar[dict[int, float]] = {}  # by user: when this process last looked

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        if not token.isascii() or not token.decode().isprintable():  # no database need be asked for it
            raise AuthenticationFailed("Invalid token.")
        user, found = self._live(token.decode()) or super().authenticate_credentials(token)
        scope = getattr(found, "scope", None) or self._scope(found)
        roles.limit(user, roles.SCOPES.get(scope, Level.NONE))
        return user, found

    def _live(self, token: str) -> tuple[User, AuthToken] | None:
        """None where there is no such token, and when it is time to look through the user's others. Of the rows only
        what is named above is read; the rest is, when somebody asks for it."""
        key = token[: CONSTANTS.TOKEN_KEY_LENGTH]
        with connection.cursor() as cursor:
            cursor.execute(LIVE, [key, connection.ops.adapt_datetimefield_value(timezone.now())])
            rows = cursor.fetchall()
        try:
            digest = hash_token(token)
        except (TypeError, binascii.Error):
            return None
        mine = [row for row in rows if compare_digest(digest, row[0])]
        if not mine or time.monotonic() - self._swept.get(mine[0][3], -SWEEP_EVERY_S) >= SWEEP_EVERY_S:
            return None
        _, scope, _, *columns = mine[0]
        user = User.from_db(connection.alias, OF_USER, columns)
        user.held_groups = tuple(row[2] for row in mine)  # type: ignore[attr-defined]
        found = AuthToken.from_db(connection.alias, ("digest", "token_key", "user_id"), (digest, key, user.pk))
        found.user, found.scope = user, scope
        return user, found

    def _scope(self, token: AuthToken) -> str | None:
        return TokenGrant.objects.filter(token=token).values_list("scope", flat=True).first()

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
