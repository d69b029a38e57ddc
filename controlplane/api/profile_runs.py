"""Measuring running engines: asking for it, how far it is, calling it off."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.resource import Resource
from controlplane.api.shapes import Link
from controlplane.api.strict import Id, Reason
from controlplane.planning import measurements
from controlplane.planning.models import ProfileRun


class RunShape(serializers.ModelSerializer):
    """One measuring, wanted, under way or ended."""

    deployment = Link()
    partition = serializers.SerializerMethodField()

    class Meta:
        model = ProfileRun
        fields = [
            "id", "deployment", "partition", "state", "asked_by", "asked_at", "reason", "done", "steps", "message",
            "ended_at", "profile",
        ]  # fmt: skip
        extra_kwargs = {
            "steps": {"help_text": "In all. 0: not known yet."},
            "message": {"help_text": "What is measured now, or why nothing was."},
            "profile": {"help_text": "The id of what came of it. Null: nothing yet, or it was deleted."},
        }

    def get_partition(self, row: ProfileRun) -> str:
        return str(row.partition)


class RunBody(Reason):
    deployment = Id(help_text="Whose engine.")
    partition = Id(required=False, allow_null=True, default=None, help_text="Which one. Null: the first that is ready.")
    force = serializers.BooleanField(required=False, default=False, help_text="Also where the deployment serves.")


class RunFilters(Filters):
    class Meta:
        model = ProfileRun
        fields = ["deployment", "partition", "state"]


@extend_schema_view(
    list=extend_schema(summary="List measurings", description="The newest first; ended ones are kept for a while."),
    retrieve=extend_schema(summary="One measuring", description="How far it is, and what came of it."),
)
class ProfileRuns(ListModelMixin, RetrieveModelMixin, Resource):
    """Measuring engines."""

    noun = "measuring"
    role_actions = {"create": "profile.change", "cancel": "profile.change"}
    queryset = ProfileRun.objects.select_related("deployment", "partition__node")
    serializer_class = RunShape
    filterset_class = RunFilters
    ordering = ["-id"]
    ordering_fields = ["id", "asked_at"]
    bodies: dict[str, Any] = {"create": RunBody, "cancel": Reason}

    @extend_schema(
        summary="Measure an engine",
        description="A ready engine is asked with prompts and batches of rising size for minutes, one engine after the "
        "other; a profile comes of it. Refused while its deployment serves requests, unless `force`.",
        request=RunBody,
        responses={202: RunShape},
        examples=[
            OpenApiExample("the first that is ready", value={"deployment": 1, "reason": "new flags"}, request_only=True)
        ],
    )
    def create(self, request: Request) -> Response:
        body = self.body()
        run = measurements.ask(
            body["deployment"], partition_id=body["partition"], force=body["force"], reason=body["reason"],
            actor=self.actor,
        )  # fmt: skip
        return self.shown(run.pk, HTTPStatus.ACCEPTED)

    @extend_schema(
        summary="Call a measuring off",
        description="Wanted or under way. Nothing happens where it has ended.",
        request=Reason,
        responses=RunShape,
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        measurements.cancel(self.id, reason=self.body()["reason"], actor=self.actor)
        return self.shown()
