"""Tokens that let a host join as a node, once. Admins only."""

from __future__ import annotations

from http import HTTPStatus

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters, YesNo
from controlplane.api.resource import Resource
from controlplane.api.shapes import Link
from controlplane.api.strict import Body
from controlplane.fleet import services
from controlplane.fleet.models import JoinToken


class JoinTokenShape(serializers.ModelSerializer):
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    used_by = Link(allow_null=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = JoinToken
        fields = [
            "id", "prefix", "node_name", "state", "created_by", "created_at", "expires_at", "used_at", "used_by",
            "used_from",
        ]  # fmt: skip
        extra_kwargs = {"node_name": {"help_text": "Empty: any name that is not taken."}}

    def get_state(self, token: JoinToken) -> str:
        if token.used_at:
            return "used"
        return "expired" if token.expires_at <= timezone.now() else "open"


class NewJoinTokenShape(JoinTokenShape):
    token = serializers.CharField(help_text="Shown this once; only its hash is kept.")
    command = serializers.CharField(help_text="What to run on the host, exactly.")

    class Meta(JoinTokenShape.Meta):
        fields = [*JoinTokenShape.Meta.fields, "token", "command"]


class JoinTokenBody(Body):
    node_name = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=63, help_text="Only this node may join, or re-join."
    )
    ttl_s = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=30 * 86400, help_text="Default: an hour."
    )


class JoinTokenFilters(Filters):
    open = YesNo(method="by_open", help_text="true: can still be used.")

    class Meta:
        model = JoinToken
        fields = ["node_name"]

    def by_open(self, queryset: QuerySet[JoinToken], name: str, value: bool) -> QuerySet[JoinToken]:
        still_open = queryset.filter(used_at=None, expires_at__gt=timezone.now())
        return still_open if value else queryset.exclude(pk__in=still_open.values("pk"))


@extend_schema_view(
    list=extend_schema(summary="List join tokens", description="Newest first. A token itself is never shown again."),
    retrieve=extend_schema(summary="One join token"),
)
class JoinTokens(ListModelMixin, RetrieveModelMixin, Resource):
    """Tokens that let a host join, once."""

    noun = "join token"
    role_action = "node.join"
    queryset = JoinToken.objects.select_related("created_by", "used_by")
    serializer_class = JoinTokenShape
    filterset_class = JoinTokenFilters
    ordering = ["-id"]
    ordering_fields = ["id", "created_at", "expires_at", "used_at"]
    shows_secret = frozenset({"create"})
    bodies = {"create": JoinTokenBody}

    @extend_schema(
        summary="Make a join token",
        description="The answer holds the token and the command to run on the host, once.",
        request=JoinTokenBody,
        responses={201: NewJoinTokenShape},
        examples=[
            OpenApiExample("for one node", value={"node_name": "gpu-07", "ttl_s": 900}, request_only=True),
        ],
    )
    def create(self, request: Request) -> Response:
        token, plain = services.issue_join_token(**self.body(), actor=self.actor)
        command = services.join_command(plain, node_name=token.node_name)
        return Response({**JoinTokenShape(token).data, "token": plain, "command": command}, HTTPStatus.CREATED)

    @extend_schema(
        summary="Cancel a join token",
        description="An unused token expires now. One that was used stays as it is: its node has its own credentials.",
        responses={204: OpenApiResponse(description="It opens nothing more.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.cancel_join_token(self.id, actor=self.actor)
        return Response(status=HTTPStatus.NO_CONTENT)
