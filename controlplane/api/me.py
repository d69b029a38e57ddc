"""Who is calling and what they may do, and which versions run here."""

from __future__ import annotations

import platform

import django
from django.conf import settings
from drf_spectacular.utils import OpenApiExample, extend_schema
from knox.models import AuthToken
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.permissions import LoggedIn
from controlplane.audit import people, roles
from controlplane.fleet.models import Node

GIVEN_ROLES, GIVEN_SCOPES = list(roles.ROLES), list(roles.SCOPES)
ACCOUNT_ROLES = ["none", *GIVEN_ROLES]
TOKEN_SCOPES = ["none", *GIVEN_SCOPES]


class MeShape(serializers.Serializer):
    username = serializers.CharField()
    kind = serializers.ChoiceField(["person", "service"])
    role = serializers.ChoiceField(ACCOUNT_ROLES)
    scope = serializers.ChoiceField(TOKEN_SCOPES, allow_null=True, help_text="Of the token, if one came.")
    actions = serializers.ListField(
        child=serializers.CharField(), help_text="What may be done: by the role, and by the scope of the token."
    )
    via = serializers.ChoiceField(["token", "session"])
    token_expires_at = serializers.DateTimeField(allow_null=True)


class Me(APIView):
    permission_classes = [LoggedIn]

    @extend_schema(
        operation_id="me",
        summary="Who am I",
        description="The account behind the request, its role and the actions that role permits.",
        tags=["access"],
        responses=MeShape,
        examples=[
            OpenApiExample(
                "a viewer",
                value={
                    "username": "ada",
                    "kind": "person",
                    "role": "viewer",
                    "scope": "read",
                    "actions": ["view"],
                    "via": "token",
                    "token_expires_at": "2027-01-01T00:00:00Z",
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        level = roles.level_of(request.user)
        token = request.auth if isinstance(request.auth, AuthToken) else None
        return Response(
            MeShape(
                {
                    "username": request.user.get_username(),
                    "kind": "service" if people.is_service(request.user) else "person",
                    "role": roles.role_of(request.user).name.lower(),
                    "scope": roles.scope_of(roles.ceiling_of(request.user)) if token else None,
                    "actions": sorted(action for action, needed in roles.ACTIONS.items() if level >= needed),
                    "via": "token" if token else "session",
                    "token_expires_at": token.expiry if token else None,
                }
            ).data
        )


class VersionShape(serializers.Serializer):
    forebay = serializers.CharField()
    api = serializers.CharField()
    python = serializers.CharField()
    django = serializers.CharField()
    agents = serializers.ListField(child=serializers.CharField(), help_text="Versions of the agents in the fleet.")
    engines = serializers.ListField(child=serializers.CharField(), help_text="Versions of the engines on the nodes.")


class Version(APIView):
    @extend_schema(
        operation_id="version",
        summary="Versions",
        description="Of the control plane, and of the agents and engines that the nodes report.",
        tags=["system"],
        responses=VersionShape,
    )
    def get(self, request: Request) -> Response:
        return Response(
            {
                "forebay": settings.VERSION,
                "api": "v1",
                "python": platform.python_version(),
                "django": django.get_version(),
                "agents": _distinct("agent_version"),
                "engines": _distinct("engine_version"),
            }
        )


def _distinct(column: str) -> list[str]:
    return list(Node.objects.exclude(**{column: ""}).order_by(column).values_list(column, flat=True).distinct())
