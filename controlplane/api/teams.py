"""Teams: who shares a budget, and which deployments they pay for while nobody asks anything of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.resource import REASON, Resource
from controlplane.api.strict import Reason
from controlplane.teams import services
from controlplane.teams.models import Team

SOFT = "Money a month; past it somebody is told. null: no such limit."
FLOOR = "GPUs of the pool that its deployments can always have when they are asked for; 0: none."
HARD = "Money a month; past it the gateway refuses the team's keys until the month is over. null: no such limit."


def money(**kwargs: Any) -> serializers.DecimalField:
    return serializers.DecimalField(14, 2, coerce_to_string=False, min_value=0, allow_null=True, **kwargs)


class TeamShape(serializers.ModelSerializer):
    budget_soft = money(help_text=SOFT)
    budget_hard = money(help_text=HARD)
    pool_floor = serializers.IntegerField(help_text=FLOOR)
    deployments = serializers.SerializerMethodField()
    keys = serializers.SerializerMethodField()

    class Meta:
        model = Team
        fields = ["id", "name", "budget_soft", "budget_hard", "pool_floor", "deployments", "keys", "created_at"]

    def get_deployments(self, team: Team) -> list[str]:
        return sorted(row.deployment.name for row in team.deployments.all())

    def get_keys(self, team: Team) -> int:
        """How many API keys are the team's, without the revoked ones."""
        return sum(key.revoked_at is None for key in team.keys.all())


class TeamChange(Reason):
    """What is sent changes."""

    name = serializers.CharField(required=False, max_length=120)
    budget_soft = money(required=False, help_text=SOFT)
    budget_hard = money(required=False, help_text=HARD)
    pool_floor = serializers.IntegerField(required=False, min_value=0, max_value=services.MOST_GPUS, help_text=FLOOR)
    deployments = serializers.ListField(
        child=serializers.CharField(max_length=120),
        required=False,
        max_length=2000,
        help_text="Names of all that it pays for while no request is at them; each is one team's at most.",
    )


class TeamBody(TeamChange):
    name = serializers.CharField(max_length=120)
    reason = None


class TeamFilters(Filters):
    class Meta:
        model = Team
        fields = ["name"]


class TeamOfKey(Reason):
    team = serializers.CharField(allow_null=True, max_length=120, help_text="A team's name; null: nobody's.")


@extend_schema_view(
    list=extend_schema(summary="List teams", description="By name."),
    retrieve=extend_schema(summary="One team"),
)
class Teams(ListModelMixin, RetrieveModelMixin, Resource):
    """Those who share a budget. Money is in the currency of `GET usage`, a month is a calendar month in UTC."""

    noun = "team"
    role_actions = {"create": "team.manage", "partial_update": "team.manage", "destroy": "team.manage"}
    queryset = Team.objects.prefetch_related("deployments__deployment", "keys")
    serializer_class = TeamShape
    filterset_class = TeamFilters
    ordering = ["name"]
    ordering_fields = ["id", "name", "created_at"]
    parameters = {"destroy": {"reason"}}
    bodies = {"create": TeamBody, "partial_update": TeamChange}

    @extend_schema(
        summary="Make a team",
        description="Give it API keys with `team` when they are made, or with `PUT keys/{id}/team`.",
        request=TeamBody,
        responses={201: TeamShape},
        examples=[
            OpenApiExample(
                "with a budget",
                value={"name": "search", "budget_soft": 800, "budget_hard": 1000, "deployments": ["smollm2-135m"]},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        team = services.create_team(**self.body(), actor=self.actor)
        return self.shown(team.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Change a team",
        description="Only what is sent changes. A hard limit holds at the gateways within a second.",
        request=TeamChange,
        responses=TeamShape,
        examples=[OpenApiExample("a new limit", value={"budget_hard": 1200}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.change_team(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Remove a team",
        description="Refused while an API key or usage on record is the team's.",
        parameters=[REASON],
        responses={204: OpenApiResponse(description="It is gone.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.remove_team(self.id, actor=self.actor, reason=self.reason())
        return Response(status=HTTPStatus.NO_CONTENT)
