"""Accounts of programs, and the tokens that admins give them."""

from __future__ import annotations

from http import HTTPStatus

from django.db import transaction
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.me import ACCOUNT_ROLES, GIVEN_ROLES
from controlplane.api.resource import Resource
from controlplane.api.strict import Body
from controlplane.api.tokens import NewTokenShape, TokenBody, TokenShape, issued
from controlplane.audit import people, roles, service_accounts
from controlplane.audit import tokens as rest_tokens
from controlplane.audit.models import ServiceAccount


class ServiceAccountShape(serializers.ModelSerializer):
    name = serializers.CharField(source="user.username")
    role = serializers.SerializerMethodField(help_text="As it is while the account is enabled.")
    active = serializers.BooleanField(source="user.is_active")

    class Meta:
        model = ServiceAccount
        fields = ["id", "name", "description", "role", "active", "created_at", "created_by"]

    @extend_schema_field(serializers.ChoiceField(ACCOUNT_ROLES))
    def get_role(self, account: ServiceAccount) -> str:
        held = [group.name for group in account.user.groups.all() if group.name in roles.ROLES]
        return max(held, key=roles.ROLES.__getitem__, default="none")


class ServiceAccountBody(Body):
    name = serializers.CharField(max_length=150)
    role = serializers.ChoiceField(GIVEN_ROLES)
    description = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        max_length=200,
        help_text="What the program does, and whose it is.",
    )


class ServiceAccountChange(Body):
    role = serializers.ChoiceField(GIVEN_ROLES, required=False)
    active = serializers.BooleanField(required=False, help_text="false: its tokens open nothing until true again.")
    description = serializers.CharField(required=False, allow_blank=True, max_length=200)


class ServiceAccountFilters(Filters):
    class Meta:
        model = ServiceAccount
        fields: list[str] = []


@extend_schema_view(
    list=extend_schema(summary="List service accounts", description="By name."),
    retrieve=extend_schema(summary="One service account"),
)
class ServiceAccounts(ListModelMixin, RetrieveModelMixin, Resource):
    """Accounts of programs: no password, no sign-in, a role, and tokens. Admins only."""

    noun = "service account"
    role_action = "user.manage"
    shows_secret = frozenset({"issue_token"})
    queryset = ServiceAccount.objects.select_related("user").prefetch_related("user__groups")
    serializer_class = ServiceAccountShape
    filterset_class = ServiceAccountFilters
    ordering = ["user__username"]
    bodies = {"create": ServiceAccountBody, "partial_update": ServiceAccountChange}

    @extend_schema(
        summary="Make a service account",
        description="It can do nothing until a token is issued for it.",
        request=ServiceAccountBody,
        responses={201: ServiceAccountShape},
        examples=[
            OpenApiExample(
                "a deploy pipeline",
                value={"name": "ci-deploy", "role": "operator", "description": "rolls out models, by the ML team"},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        account = service_accounts.create(**self.body(), actor=self.actor)
        return self.shown(account.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Change a service account",
        description="Its role, whether it is enabled, its description: what is sent is changed, all of it or nothing.",
        request=ServiceAccountChange,
        responses=ServiceAccountShape,
        examples=[OpenApiExample("look only", value={"role": "viewer"}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        account, body = self.get_object(), self.body()
        with transaction.atomic():
            if "role" in body:
                people.set_role(account.user_id, role=body["role"], actor=self.actor)
            if "active" in body:
                people.set_active(account.user_id, active=body["active"], actor=self.actor)
            if "description" in body:
                service_accounts.describe(account.pk, description=body["description"], actor=self.actor)
        return self.shown()

    @extend_schema(
        operation_id="service_accounts_tokens_list",
        summary="Tokens of a service account",
        description="Those that have not expired, newest first.",
        responses=TokenShape(many=True),
    )
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def tokens(self, request: Request, pk: str) -> Response:
        found = rest_tokens.of(self.get_object().user)
        return Response(TokenShape(found, many=True, context={"request": request}).data)

    @extend_schema(
        operation_id="service_accounts_tokens_create",
        summary="Issue a token for a service account",
        description="The answer holds the token, once. Its scope is never more than the account's role.",
        request=TokenBody,
        responses={201: NewTokenShape},
        examples=[
            OpenApiExample(
                "for 90 days",
                value={"expires_in_s": 90 * rest_tokens.DAY_S, "scope": "operate", "name": "pipeline"},
                request_only=True,
            )
        ],
    )
    @tokens.mapping.post
    def issue_token(self, request: Request, pk: str) -> Response:
        account = self.get_object()
        body = TokenBody(data=request.data)
        body.is_valid(raise_exception=True)
        return issued(body.validated_data, account.user, request)

    @extend_schema(
        operation_id="service_accounts_tokens_revoke",
        summary="Revoke a token of a service account",
        description="It opens nothing from the next request on.",
        parameters=[OpenApiParameter("token_id", str, OpenApiParameter.PATH)],
        request=None,
        responses={204: OpenApiResponse(description="It is gone.")},
    )
    @action(detail=True, methods=["delete"], url_path="tokens/(?P<token_id>[A-Za-z0-9]+)")
    def revoke_token(self, request: Request, pk: str, token_id: str) -> Response:
        found = rest_tokens.of(self.get_object().user).filter(token_key=token_id)
        if not rest_tokens.revoke(found, actor=self.actor):
            raise NotFound(f"This account has no token {token_id}.")
        return Response(status=HTTPStatus.NO_CONTENT)
