"""Replicas: what runs. A partition with an engine process, seen from the process."""

from __future__ import annotations

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from controlplane.api.filters import Filters
from controlplane.api.resource import Resource
from controlplane.api.shapes import PARTITION_STATUSES, PHASES, ROLES, Link, PartitionShape
from controlplane.fleet.models import Partition
from workers.contract import Phase


class ReplicaShape(PartitionShape):
    """`deployment` and `desired_role` are what is desired of it, `role` and `phase` what its agent says it is."""

    partition = Link(source="*")
    role = serializers.CharField(source="observed_role", help_text="As its agent reports it.")
    desired_role = serializers.SerializerMethodField()
    status = serializers.SerializerMethodField()
    logs = serializers.SerializerMethodField(help_text="Where its log is read.")

    class Meta:
        model = Partition
        fields = [
            "id", "node", "partition", "deployment", "desired_role", "role", "phase", "phase_since", "status",
            "confirmed", "generation", "observed_generation", "pid", "endpoint", "engine_version", "restarts",
            "message", "ready_after_s", "logs",
        ]  # fmt: skip
        extra_kwargs = PartitionShape.Meta.extra_kwargs

    @extend_schema_field(serializers.ChoiceField(ROLES, allow_null=True))
    def get_desired_role(self, partition: Partition) -> str | None:
        return partition.role or None

    @extend_schema_field(serializers.ChoiceField(PARTITION_STATUSES))
    def get_status(self, partition: Partition) -> str:
        return super().get_status(partition)

    def get_logs(self, partition: Partition) -> str:
        return f"/api/v1/partitions/{partition.pk}/logs"


class ReplicaFilters(Filters):
    role = filters.ChoiceFilter(field_name="observed_role", choices=[(role, role) for role in ROLES])
    phase = filters.ChoiceFilter(choices=[(phase, phase) for phase in PHASES])

    class Meta:
        model = Partition
        fields = ["node", "deployment"]


@extend_schema_view(
    list=extend_schema(
        summary="List replicas",
        description="The engines that their agents report, also those that end. Each has the id of its partition.",
    ),
    retrieve=extend_schema(summary="One replica"),
)
class Replicas(ListModelMixin, RetrieveModelMixin, Resource):
    """The engine process that fills a partition."""

    noun = "replica"
    serializer_class = ReplicaShape
    filterset_class = ReplicaFilters
    ordering = ["node__name", "name"]
    ordering_fields = ["id", "phase_since", "restarts"]
    queryset = (
        Partition.objects.exclude(phase__in=["", Phase.EXITED.value])
        .select_related("node", "deployment")
        .prefetch_related("gpus")
    )
