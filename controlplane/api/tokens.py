"""Tokens for this API. One is had by password or session, never by another token, and always expires."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from knox.models import AuthToken
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from controlplane.api.authentication import Password
from controlplane.api.idempotency import Idempotent
from controlplane.api.me import GIVEN_SCOPES, TOKEN_SCOPES
from controlplane.api.strict import Body
from controlplane.audit import second_factor, tokens
from controlplane.audit.requests import actor_of

DAY_S = tokens.DAY_S
DEFAULT_TTL_S = 30 * DAY_S


class PerAddress(SimpleRateThrottle):
    """By the peer's address: a header that callers write themselves must not open a new allowance."""

    scope = "token"
    rate = "20/min"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        return self.cache_format % {"scope": self.scope, "ident": request.META.get("REMOTE_ADDR", "")}


class TokenBody(Body):
    expires_in_s = serializers.IntegerField(
        required=False,
        default=DEFAULT_TTL_S,
        min_value=60,
        max_value=tokens.MAX_TTL_S,
        help_text="Seconds it stays valid.",
    )
    scope = serializers.ChoiceField(
        GIVEN_SCOPES, required=False, help_text="The most it is good for; without it, all that the role allows."
    )
    name = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=80, help_text="What it is for, to know it by."
    )


class LoginBody(TokenBody):
    otp = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=20,
        help_text="With a password: the code of the authenticator app, or a recovery code, if the account has one.",
    )


class TokenShape(serializers.Serializer):
    id = serializers.CharField(source="token_key", help_text="The beginning of the token.")
    name = serializers.CharField(source="grant.name", default="")
    scope = serializers.ChoiceField(TOKEN_SCOPES, source="grant.scope", default="none")
    created_at = serializers.DateTimeField(source="created")
    expires_at = serializers.DateTimeField(source="expiry", allow_null=True)
    current = serializers.SerializerMethodField(help_text="This request came with it.")

    def get_current(self, token: AuthToken) -> bool:
        return token == self.context["request"].auth


class NewTokenShape(TokenShape):
    token = serializers.CharField(help_text="Shown this once.")


def issued(asked: dict[str, Any], user: Any, request: Request) -> Response:
    """The answer that holds a new token, once."""
    ttl_s = asked["expires_in_s"]
    token, plain = tokens.issue(
        user=user, ttl_s=ttl_s, scope=asked.get("scope", ""), name=asked["name"], actor=actor_of(request, "rest")
    )
    shown = TokenShape(token, context={"request": request}).data
    return Response({**shown, "token": plain}, HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})


class Tokens(Idempotent):
    # A token is worth no more than its user, so every role may hold one.
    role_action = "view"
    throttle_classes = [PerAddress]
    shows_secret = frozenset({"POST"})

    def get_authenticators(self) -> list[BaseAuthentication]:
        """No token by token: a stolen one could otherwise prolong itself for ever."""
        if self.request is not None and self.request.method == "POST":
            return [Password(), SessionAuthentication()]
        return super().get_authenticators()

    def perform_authentication(self, request: Request) -> None:
        """Counted before the password is looked at, for a wrong one must count as well."""
        if request.method == "POST":
            super().check_throttles(request)
        super().perform_authentication(request)

    def check_throttles(self, request: Request) -> None:
        """Done above."""

    @extend_schema(
        operation_id="tokens_list",
        summary="My tokens",
        description="The caller's own tokens that have not expired, newest first. All at once: they are few.",
        tags=["access"],
        responses=TokenShape(many=True),
    )
    def get(self, request: Request) -> Response:
        return Response(TokenShape(tokens.of(request.user), many=True, context={"request": request}).data)

    @extend_schema(
        operation_id="tokens_create",
        summary="Log in: get a token",
        description=(
            "With `Authorization: Basic` (username and password) or a session. Send the token afterwards as "
            "`Authorization: Token ...`. An account with a second factor sends its code as `otp`. "
            "Tries are limited by address; wrong passwords lock the name for a while."
        ),
        tags=["access"],
        request=LoginBody,
        responses={201: NewTokenShape},
        examples=[
            OpenApiExample(
                "to look, for a day",
                value={"expires_in_s": DAY_S, "scope": "read", "name": "dashboard"},
                request_only=True,
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        body = LoginBody(data=request.data)
        body.is_valid(raise_exception=True)
        if isinstance(request.successful_authenticator, Password):
            _require_second_factor(request.user, body.validated_data["otp"])
        return issued(body.validated_data, request.user, request)

    @extend_schema(
        operation_id="tokens_revoke_all",
        summary="Log out everywhere",
        description="Ends all tokens of the caller, the one it came with included. Sessions in browsers go on.",
        tags=["access"],
        request=None,
        responses={204: OpenApiResponse(description="They are gone.")},
    )
    def delete(self, request: Request) -> Response:
        tokens.revoke(tokens.of(request.user), actor=actor_of(request, "rest"))
        return Response(status=HTTPStatus.NO_CONTENT)


def _require_second_factor(user: Any, code: str) -> None:
    if not second_factor.has(user):
        return
    if not code:
        raise AuthenticationFailed("This account has a second factor: send its code as otp.", code="otp_required")
    if not second_factor.passes(user, code):
        raise AuthenticationFailed("Wrong code, or one that was used before.", code="otp_wrong")


class OneToken(Idempotent):
    role_action = "view"

    @extend_schema(
        operation_id="tokens_revoke",
        summary="Log out: end a token",
        description="Ends one of the caller's own tokens: by its id, or `current` for the one it came with.",
        tags=["access"],
        request=None,
        responses={204: OpenApiResponse(description="It is gone.")},
    )
    def delete(self, request: Request, token_id: str) -> Response:
        if token_id == "current":  # noqa: S105 - the word, not a secret
            found = tokens.of(request.user).filter(pk=getattr(request.auth, "pk", ""))
        else:
            found = tokens.of(request.user).filter(token_key=token_id)
        if not found.exists():
            raise NotFound(f"You have no token {token_id}.")
        tokens.revoke(found, actor=actor_of(request, "rest"))
        return Response(status=HTTPStatus.NO_CONTENT)
