"""Keys that open the gateway's OpenAI API."""

from __future__ import annotations

from http import HTTPStatus

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters, YesNo
from controlplane.api.resource import Resource
from controlplane.api.strict import Body, Nothing
from controlplane.api.teams import TeamOfKey
from controlplane.gateway import services
from controlplane.gateway.models import ApiKey


class KeyShape(serializers.ModelSerializer):
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True, read_only=True)
    team = serializers.CharField(source="team.name", default=None, allow_null=True, read_only=True)

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "prefix", "deployments", "requests_per_minute", "team",
            "created_by", "created_at", "expires_at", "revoked_at",
        ]  # fmt: skip
        extra_kwargs = {"prefix": {"help_text": "The beginning of the key."}}

    deployments = serializers.ListField(child=serializers.CharField(), help_text="What it may use; empty: all.")


class NewKeyShape(KeyShape):
    key = serializers.CharField(help_text="Shown this once; only its hash is kept.")

    class Meta(KeyShape.Meta):
        fields = [*KeyShape.Meta.fields, "key"]


class KeyBody(Body):
    name = serializers.CharField(max_length=120, help_text="Who or what uses it.")
    deployments = serializers.ListField(
        child=serializers.CharField(max_length=120),
        required=False,
        default=list,
        max_length=200,
        help_text="Names of the deployments it may use; empty: all.",
    )
    requests_per_minute = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=1_000_000, help_text="null: no limit."
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None, help_text="null: never.")
    team = serializers.CharField(
        required=False, allow_null=True, default=None, max_length=120, help_text="Whose its use is; null: nobody's."
    )


class KeyFilters(Filters):
    revoked = YesNo(field_name="revoked_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = ApiKey
        fields = ["name"]


@extend_schema_view(
    list=extend_schema(summary="List API keys", description="Newest first. A key itself is never shown again."),
    retrieve=extend_schema(summary="One API key"),
)
class Keys(ListModelMixin, RetrieveModelMixin, Resource):
    """Keys that open the gateway. Admins only."""

    noun = "API key"
    role_action = "key.manage"
    queryset = ApiKey.objects.select_related("created_by", "team")
    serializer_class = KeyShape
    filterset_class = KeyFilters
    ordering = ["-id"]
    ordering_fields = ["id", "name", "created_at", "expires_at"]
    shows_secret = frozenset({"create"})
    bodies = {"create": KeyBody, "revoke": Nothing, "team": TeamOfKey}

    @extend_schema(
        summary="Make an API key",
        description="The answer holds the key, once. Clients send it to the gateway as `Authorization: Bearer fb-...`.",
        request=KeyBody,
        responses={201: NewKeyShape},
        examples=[
            OpenApiExample(
                "for one deployment",
                value={"name": "billing service", "deployments": ["smollm2-135m"], "requests_per_minute": 600},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        key, plain = services.create_key(**self.body(), actor=self.actor)
        return Response({**KeyShape(key).data, "key": plain}, HTTPStatus.CREATED)

    @extend_schema(
        summary="Revoke an API key",
        description="The gateway stops taking it within a second. It cannot be given back; make another.",
        request=Nothing,
        responses=KeyShape,
    )
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        self.body()
        services.revoke_key(self.id, actor=self.actor)
        return Response(KeyShape(self.get_object()).data)

    @extend_schema(
        summary="Give an API key to a team",
        description="What is used from now on is that team's; what was counted before stays where it is.",
        request=TeamOfKey,
        responses=KeyShape,
        examples=[OpenApiExample("to a team", value={"team": "search"}, request_only=True)],
    )
    @action(detail=True, methods=["put"])
    def team(self, request: Request, pk: str) -> Response:
        services.give_to_team(self.id, **self.body(), actor=self.actor)
        return self.shown()
