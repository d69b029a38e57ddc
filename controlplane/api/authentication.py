"""Who calls: a token, or a username and password where a token is asked for. Browsers come with their session."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate
from rest_framework.authentication import BasicAuthentication
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from controlplane.audit.bearer import Bearer


class ApiToken(Bearer):
    """`Authorization: Token ...`, good for what its scope and its user's role both allow."""


class Password(BasicAuthentication):
    """`Authorization: Basic ...`, counted by axes like the login page: too many wrong ones lock the name out."""

    www_authenticate_realm = "Forebay"

    def authenticate_credentials(self, userid: str, password: str, request: Request | None = None) -> tuple[Any, None]:
        user = authenticate(request=request, username=userid, password=password)
        if user is not None:
            return user, None
        if getattr(request, "axes_locked_out", False):
            raise Throttled(wait=settings.AXES_COOLOFF_TIME * 3600, detail="Too many wrong passwords.")
        raise AuthenticationFailed("Wrong username or password.")
