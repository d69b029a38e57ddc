"""Partitions: which GPUs belong together, and what is assigned to them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
)
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import lists
from controlplane.api.filters import Filters, YesNo
from controlplane.api.lists import PlainList
from controlplane.api.previews import AssignPreview
from controlplane.api.resource import DRY_RUN, Resource
from controlplane.api.shapes import PHASES, ROLES, PartitionShape, may_see_endpoints
from controlplane.api.strict import MAX_ID, Body, Id, Reason
from controlplane.fleet import services
from controlplane.fleet.models import Partition


class PartitionBody(Body):
    node = Id(help_text="Where its GPUs are.")
    name = serializers.CharField(max_length=40)
    gpu_indices = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=10_000), min_length=1, max_length=1024
    )


def seen_generation() -> serializers.IntegerField:
    text = "The partition's generation as you saw it; 409 when somebody was faster."
    return serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=0, max_value=MAX_ID, help_text=text
    )


class AssignBody(Reason):
    deployment = Id()
    role = serializers.ChoiceField(ROLES)
    force = serializers.BooleanField(required=False, default=False, help_text="Override problems that are `forceable`.")
    expected_generation = seen_generation()


class ReleaseBody(Reason):
    expected_generation = seen_generation()


class PartitionChange(Reason):
    """Only what is sent changes."""

    pool = serializers.BooleanField(help_text="Set it aside for whichever pooled deployment is asked for.")


class PartitionFilters(Filters):
    assigned = YesNo(field_name="deployment", lookup_expr="isnull", exclude=True)
    role = filters.ChoiceFilter(choices=[(role, role) for role in ROLES])
    phase = filters.ChoiceFilter(choices=[(phase, phase) for phase in PHASES])

    class Meta:
        model = Partition
        fields = ["node", "deployment", "name", "pinned", "pool"]


@extend_schema_view(
    list=extend_schema(summary="List partitions", description="By node and name, assigned or not."),
    retrieve=extend_schema(summary="One partition"),
)
class Partitions(PlainList, ListModelMixin, RetrieveModelMixin, Resource):
    """A named set of GPUs of one node that runs at most one engine."""

    noun = "partition"
    columns = lists.PARTITION
    role_actions = {
        "create": "partition.change",
        "partial_update": "partition.change",
        "destroy": "partition.change",
        "assign": "partition.assign",
        "release": "partition.assign",
    }
    queryset = Partition.objects.select_related("node", "deployment").prefetch_related("gpus")
    serializer_class = PartitionShape
    filterset_class = PartitionFilters
    ordering = ["node__name", "name"]
    ordering_fields = ["id", "name", "generation", "phase_since"]
    parameters = {"assign": {"dry_run"}}
    bodies = {"create": PartitionBody, "partial_update": PartitionChange, "assign": AssignBody, "release": ReleaseBody}

    def listed(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return lists.partitions(rows, endpoints=may_see_endpoints(self.get_serializer_context()))

    @extend_schema(
        summary="Make a partition",
        description="Of GPUs that lie in none. To divide a whole node at once, split it.",
        request=PartitionBody,
        responses={201: PartitionShape},
        examples=[
            OpenApiExample("two GPUs", value={"node": 3, "name": "p8", "gpu_indices": [6, 7]}, request_only=True)
        ],
    )
    def create(self, request: Request) -> Response:
        body = self.body()
        made = services.create_partition(body.pop("node"), **body, actor=self.actor)
        return self.shown(made.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Set a partition aside for the pool, or take it back",
        description="What runs there stays until it is moved or released.",
        request=PartitionChange,
        responses=PartitionShape,
        examples=[OpenApiExample("a slot of the pool", value={"pool": True}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.set_pool(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Delete a partition",
        description="Its GPUs lie in none afterwards. Refused while it is assigned or has a process.",
        responses={204: OpenApiResponse(description="It is deleted.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_partition(self.id, actor=self.actor)
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(
        summary="Assign a partition",
        description=(
            "Says which deployment it shall run, in which role. The answer comes at once, the engine later: follow "
            "`status` until `confirmed`. With `dry_run=true` nothing changes and the answer is a preview: what stands "
            "against it, whether it fits, and whether the engine is replaced or only its role."
        ),
        parameters=[DRY_RUN],
        request=AssignBody,
        responses=PolymorphicProxySerializer(
            component_name="PartitionOrPreview",
            serializers=[PartitionShape, AssignPreview],
            resource_type_field_name=None,
        ),
        examples=[
            OpenApiExample(
                "as prefill",
                value={"deployment": 1, "role": "prefill", "reason": "more prompts", "expected_generation": 41},
                request_only=True,
            )
        ],
    )
    @action(detail=True, methods=["post"])
    def assign(self, request: Request, pk: str) -> Response:
        body = self.body()
        deployment_id = body.pop("deployment")
        if self.flag("dry_run"):
            preview = services.preview_assign(self.id, deployment_id=deployment_id, role=body["role"], actor=self.actor)
            return Response(AssignPreview(preview).data)
        services.assign(self.id, deployment_id=deployment_id, **body, actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Release a partition",
        description="Takes its assignment away; the engine ends once its requests have ended.",
        request=ReleaseBody,
        responses=PartitionShape,
        examples=[
            OpenApiExample("for the night", value={"reason": "night", "expected_generation": 42}, request_only=True)
        ],
    )
    @action(detail=True, methods=["post"])
    def release(self, request: Request, pk: str) -> Response:
        services.release(self.id, **self.body(), actor=self.actor)
        return self.shown()
