"""The brake that many silent nodes put on: how it is, and releasing it."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.idempotency import Idempotent
from controlplane.api.live_shapes import BrakeShape
from controlplane.api.strict import Body, Reason, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.fleet import brake, services


class ReleaseBrakeBody(Body):
    for_s = serializers.FloatField(min_value=1, max_value=services.MAX_RELEASE_S, help_text="Seconds it is released.")
    reason = serializers.CharField(max_length=1000, help_text="What was found; kept in the audit trail.")


class Brake(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="brake",
        summary="The brake",
        description="On while many nodes are silent at once: nothing is rescheduled by itself then. What people ask "
        "for is done all the same.",
        tags=["brake"],
        responses=BrakeShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(brake.state().to_dict())


class ReleaseBrake(Idempotent):
    role_action = "brake.release"

    @extend_schema(
        operation_id="brake_release",
        summary="Release the brake",
        description="For a time what happens by itself goes on though nodes are silent. When more nodes are lost after "
        "these are back, it is on again. Refused while it is not on.",
        tags=["brake"],
        request=ReleaseBrakeBody,
        responses=BrakeShape,
        examples=[
            OpenApiExample(
                "a rack is gone for good", value={"for_s": 1800, "reason": "rack b12 lost power"}, request_only=True
            )
        ],
    )
    def post(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        body = ReleaseBrakeBody(data=request.data)
        body.is_valid(raise_exception=True)
        found = services.release_brake(**body.validated_data, actor=actor_of(request, "rest"))
        return Response(found.to_dict())


class RestoreBrake(Idempotent):
    role_action = "brake.release"

    @extend_schema(
        operation_id="brake_restore",
        summary="End a release",
        description="The brake holds again before the release has run out. Nothing happens where it is not released.",
        tags=["brake"],
        request=Reason,
        responses=BrakeShape,
    )
    def post(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        body = Reason(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(services.restore_brake(**body.validated_data, actor=actor_of(request, "rest")).to_dict())
