"""Dedicated deployments: how many engines each role has and shall have, and plans to get there."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.filters import Filters, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import Resource
from controlplane.api.scaling_shapes import ScalingPlanDetail, ScalingPlanShape, ScalingShape
from controlplane.api.strict import Reason, refuse_unknown_parameters
from controlplane.scaling import plans
from controlplane.scaling.models import ScalingPlan
from controlplane.scaling.standing import standing


class Scaling(APIView):
    @extend_schema(
        operation_id="scaling",
        summary="What each role has and wants",
        description="Every role of every dedicated deployment as the last look found it, with the reason for what it "
        "shall have, and the plan that is open.",
        tags=["scaling"],
        responses=ScalingShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        found = standing(timezone.now())
        shown = {"looked_at": found.looked_at, "late": found.is_late, "lanes": found.lanes, "plan": found.plan}
        return Response(ScalingShape(shown).data, headers={"Cache-Control": "no-store"})


class PlanFilters(Filters):
    since = since("made_at")
    until = until("made_at")

    class Meta:
        model = ScalingPlan
        fields = ["state", "automatic"]


def _decision(name: str) -> list[OpenApiExample]:
    return [OpenApiExample(name, value={"reason": name}, request_only=True)]


@extend_schema_view(
    list=extend_schema(
        operation_id="scaling_plans_list", tags=["scaling"], summary="List plans",
        description="Newest first. One that was not applied is forgotten after 30 days.",
        responses=ScalingPlanShape(many=True),
    ),
    retrieve=extend_schema(
        operation_id="scaling_plans_retrieve", tags=["scaling"], summary="One plan",
        description="With what it does, as it was last previewed.",
    ),
)  # fmt: skip
class ScalingPlans(ListModelMixin, RetrieveModelMixin, Resource):
    """Moves that were proposed, and what became of them."""

    noun = "plan"
    role_actions = {"apply": "partition.assign", "dismiss": "capacity.change"}
    queryset = ScalingPlan.objects.all()
    serializer_class = ScalingPlanDetail
    filterset_class = PlanFilters
    pagination_class = Cursor
    ordering = ["-id"]
    bodies = {"apply": Reason, "dismiss": Reason}

    def get_serializer_class(self) -> Any:
        return ScalingPlanShape if self.action == "list" else ScalingPlanDetail

    @extend_schema(
        operation_id="scaling_plans_apply",
        tags=["scaling"],
        summary="Apply a plan",
        description="As a change like any other: follow and undo the one that `change` names. 409 `stale-plan` where "
        "somebody has changed since what it concerns; the next look makes another.",
        request=Reason,
        responses=ScalingPlanDetail,
        examples=_decision("the report runs tonight"),
    )
    @action(detail=True, methods=["post"])
    def apply(self, request: Request, pk: str) -> Response:
        plans.apply(self.id, actor=self.actor, reason=self.body()["reason"])
        return self.shown()

    @extend_schema(
        operation_id="scaling_plans_dismiss",
        tags=["scaling"],
        summary="Dismiss a plan",
        description="It is not to be done: for an hour the same moves are not proposed again.",
        request=Reason,
        responses=ScalingPlanDetail,
        examples=_decision("a load test of ours"),
    )
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, pk: str) -> Response:
        plans.dismiss(self.id, actor=self.actor, reason=self.body()["reason"])
        return self.shown()
