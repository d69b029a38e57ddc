"""Measuring GPUs over REST: asking for it, its results, and accepting what did not pass."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.db.models import Prefetch
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.resource import Resource
from controlplane.api.strict import Body, Reason
from controlplane.fleet import qualified, services
from controlplane.fleet.models import Gpu, GpuQualification

STATES = [state.value for state in GpuQualification.State]
CAUSES = [cause.value for cause in GpuQualification.Cause]
NEWEST = Prefetch(
    "qualifications",
    GpuQualification.objects.filter(state=GpuQualification.State.DONE).order_by("-id")[:1],
    to_attr="measured",
)


class AcceptBody(Body):
    reason = serializers.CharField(max_length=1000, help_text="Why it may be used as it is; kept in the audit trail.")


class FindingShape(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()


class SummaryShape(serializers.Serializer):
    """What is known of a GPU from its newest result."""

    id = serializers.IntegerField()
    measured_at = serializers.FloatField(help_text="Unix seconds.")
    bf16_tflops = serializers.FloatField(allow_null=True)
    memory_gbs = serializers.FloatField(allow_null=True, help_text="GB/s.")
    accepted_by = serializers.CharField(help_text="Who accepted what was found; empty: nobody did.")


class QualificationShape(serializers.ModelSerializer):
    """One measurement, wanted or done."""

    gpu = serializers.SerializerMethodField()
    state = serializers.ChoiceField(STATES)
    cause = serializers.ChoiceField(CAUSES)
    figures = serializers.SerializerMethodField(help_text="What was measured. null: nothing yet, or it failed.")
    findings = FindingShape(many=True, help_text="What speaks against the GPU.")
    temperature_c = serializers.SerializerMethodField(help_text="The highest while it was measured.")
    throttle = serializers.SerializerMethodField(help_text="Why its clocks were held down, comma separated.")
    ecc_errors = serializers.SerializerMethodField(help_text="Uncorrectable memory errors that came meanwhile.")

    class Meta:
        model = GpuQualification
        fields = [
            "id", "gpu", "cause", "asked_by", "asked_at", "soak_s", "state", "message", "ended_at", "driver",
            "figures", "temperature_c", "throttle", "ecc_errors", "findings", "accepted_by", "accepted_at",
            "accept_reason",
        ]  # fmt: skip
        extra_kwargs = {"message": {"help_text": "Why it waits, or why nothing could be measured."}}

    def get_gpu(self, row: GpuQualification) -> str:
        return str(row.gpu)

    @extend_schema_field({"type": "object", "additionalProperties": True, "nullable": True})
    def get_figures(self, row: GpuQualification) -> dict[str, Any] | None:
        return (row.result or {}).get("figures")

    def get_temperature_c(self, row: GpuQualification) -> float | None:
        return (row.result or {}).get("temperature_c")

    def get_throttle(self, row: GpuQualification) -> str:
        return (row.result or {}).get("throttle", "")

    def get_ecc_errors(self, row: GpuQualification) -> int | None:
        return (row.result or {}).get("ecc_errors")


class QualificationsShape(serializers.Serializer):
    qualifications = QualificationShape(many=True)


class QualifiesGpus(Resource):
    """For the resource of GPUs."""

    @extend_schema(
        summary="Measure a GPU",
        description="As soon as nothing is on it. Answers with the measurement that is wanted: look at it again under "
        "`qualifications`. Refused while the GPU is assigned.",
        request=Reason,
        responses={202: QualificationShape},
    )
    @action(detail=True, methods=["post"])
    def qualify(self, request: Request, pk: str) -> Response:
        row = services.qualify_gpu(self.id, **self.body(), actor=self.actor)
        return Response(QualificationShape(row).data, HTTPStatus.ACCEPTED)

    @extend_schema(
        summary="Give up measuring a GPU",
        description="Wanted or under way. Nothing happens where neither is.",
        request=Reason,
    )
    @action(detail=True, methods=["post"])
    def cancel_qualification(self, request: Request, pk: str) -> Response:
        services.withdraw_qualification(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Accept a GPU as it is",
        description="One that did not pass may be used all the same, until it is measured again. `unaccept` undoes it.",
        request=AcceptBody,
        examples=[
            OpenApiExample("a slow link", value={"reason": "x8 riser, enough for this model"}, request_only=True)
        ],
    )
    @action(detail=True, methods=["post"])
    def accept(self, request: Request, pk: str) -> Response:
        services.accept_gpu(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Take an acceptance back",
        description="What was found counts again. What is assigned to the GPU stays.",
        request=Reason,
    )
    @action(detail=True, methods=["post"])
    def unaccept(self, request: Request, pk: str) -> Response:
        services.unaccept_gpu(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Measurements of a GPU",
        description=f"The newest first, {qualified.KEPT} at most.",
        responses=QualificationShape(many=True),
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def qualifications(self, request: Request, pk: str) -> Response:
        found = self.get_object().qualifications.select_related("gpu__node")[: qualified.KEPT]
        return Response(QualificationShape(found, many=True).data)


class QualifiesNodes(Resource):
    """For the resource of nodes."""

    @extend_schema(
        summary="Measure a node's GPUs",
        description="Every one that nothing is assigned to, one after the other. Refused where that is none.",
        request=Reason,
        responses={202: QualificationsShape},
    )
    @action(detail=True, methods=["post"])
    def qualify(self, request: Request, pk: str) -> Response:
        made = services.qualify_node(self.id, **self.body(), actor=self.actor)
        return Response(QualificationsShape({"qualifications": made}).data, HTTPStatus.ACCEPTED)


def summary_of(gpu: Gpu) -> dict[str, Any] | None:
    """From the rows that NEWEST fetched along; else they are asked for."""
    rows = gpu.measured if hasattr(gpu, "measured") else qualified.newest([gpu]).values()
    return next((summary(row) for row in rows), None)


def summary(row: GpuQualification) -> dict[str, Any]:
    figures = (row.result or {}).get("figures") or {}
    return {
        "id": row.pk,
        "measured_at": row.ended_at.timestamp() if row.ended_at else None,
        "bf16_tflops": figures.get("bf16_tflops"),
        "memory_gbs": figures.get("memory_gbs"),
        "accepted_by": row.accepted_by,
    }
