"""How rows of the fleet look in answers. Statuses are derived here and now by the domain's rules."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.api.owners import OwnersField
from controlplane.api.qualifications import SummaryShape, summary_of
from controlplane.audit import roles
from controlplane.domain import health
from controlplane.domain.types import NodeStatus, PartitionStatus
from controlplane.fleet import verified
from controlplane.fleet.facts import drain_facts, node_view, partition_view
from controlplane.fleet.models import Gpu, Node, Partition, Role
from workers.contract import Phase

NODE_STATUSES = [status.value for status in NodeStatus]
PARTITION_STATUSES = [status.value for status in PartitionStatus]
PHASES = [phase.value for phase in Phase]
ROLES = Role.values


@extend_schema_field(OpenApiTypes.OBJECT)
class Facts(serializers.JSONField):
    """Free-form facts, as an object."""


class Link(serializers.Serializer):
    """Another row, by id and name."""

    id = serializers.IntegerField()
    name = serializers.CharField()


class GpuShape(serializers.ModelSerializer):
    node = Link()
    partition = Link(allow_null=True)
    peers = serializers.ListField(child=serializers.CharField(), help_text="uuids reachable over NVLink.")
    qualification = serializers.SerializerMethodField(help_text="What it was last measured to be. null: never.")

    class Meta:
        model = Gpu
        fields = [
            "id", "node", "uuid", "index", "kind", "name", "memory_bytes", "mig_parent", "pci", "peers",
            "present", "health", "health_detail", "foreign", "flag", "partition",
            "qualification",
        ]  # fmt: skip
        extra_kwargs = {
            "kind": {"help_text": "nvidia, mig, cpu or simulated."},
            "present": {"help_text": "It is in the node's last report."},
            "health": {"help_text": "ok, degraded or lost."},
            "foreign": {"help_text": "A process of somebody else's is on it."},
            "flag": {"help_text": "Why nothing new is placed on it: it did not pass its qualification."},
        }

    @extend_schema_field(SummaryShape(allow_null=True))
    def get_qualification(self, gpu: Gpu) -> dict[str, Any] | None:
        return summary_of(gpu)


class GpuRef(serializers.ModelSerializer):
    class Meta:
        model = Gpu
        fields = ["id", "index", "uuid"]


class PartitionShape(serializers.ModelSerializer):
    """`status` in one word for people; `confirmed`: the agent says ready, of exactly what is desired now."""

    node = Link()
    gpus = serializers.SerializerMethodField()
    deployment = Link(allow_null=True)
    role = serializers.SerializerMethodField()
    status = serializers.SerializerMethodField()
    confirmed = serializers.SerializerMethodField()
    verified = serializers.SerializerMethodField(help_text="It answered a gateway's own request, at this generation.")
    verify_message = serializers.SerializerMethodField(help_text="Why a gateway's own request failed.")
    phase = serializers.SerializerMethodField()
    endpoint = serializers.SerializerMethodField(help_text="Where its engine listens; null for viewers.")

    class Meta:
        model = Partition
        fields = [
            "id", "node", "name", "gpus", "deployment", "role", "pinned", "pool", "overflow", "status", "confirmed",
            "verified", "verified_at", "verify_message", "phase", "phase_since", "generation", "observed_generation",
            "restarts", "message", "ready_after_s", "engine_version", "endpoint",
        ]  # fmt: skip
        extra_kwargs = {
            "restarts": {"help_text": "Starts in a row that ended without staying up."},
            "ready_after_s": {"help_text": "Measured: from start to ready."},
            "pool": {"help_text": "Set aside for whichever pooled deployment is asked for."},
            "overflow": {"help_text": "The pool lends it to a dedicated deployment, and takes it back."},
            "generation": {"help_text": "Pass it as `expected_generation` to change only what you saw."},
        }

    @extend_schema_field(GpuRef(many=True))
    def get_gpus(self, partition: Partition) -> list[dict[str, Any]]:
        return GpuRef(sorted(partition.gpus.all(), key=lambda gpu: gpu.index), many=True).data

    @extend_schema_field(serializers.ChoiceField(ROLES, allow_null=True))
    def get_role(self, partition: Partition) -> str | None:
        return partition.role or None

    @extend_schema_field(serializers.ChoiceField(PARTITION_STATUSES))
    def get_status(self, partition: Partition) -> str:
        return health.partition_status(partition_view(partition), time.time(), settings.SILENT_AFTER_S)

    def get_confirmed(self, partition: Partition) -> bool:
        return health.is_confirmed(partition_view(partition))

    def get_verified(self, partition: Partition) -> bool:
        return verified.is_verified(partition)

    def get_verify_message(self, partition: Partition) -> str:
        return verified.message_of(partition)

    @extend_schema_field(serializers.ChoiceField(PHASES, allow_null=True))
    def get_phase(self, partition: Partition) -> str | None:
        return partition.phase or None

    def get_endpoint(self, partition: Partition) -> str | None:
        return (partition.endpoint or None) if may_see_endpoints(self.context) else None


class DrainShape(serializers.Serializer):
    """How far a drain is. Requests in flight are in /live."""

    began_at = serializers.FloatField(allow_null=True, help_text="Unix seconds.")
    deadline_at = serializers.FloatField(
        allow_null=True, help_text="Unix seconds: when the last of its engines is ended, idle or not. null: none runs."
    )
    partitions_left = serializers.IntegerField(help_text="With a process.")
    returns_to = serializers.ChoiceField(["ready", "cordoned"], help_text="What cancelling the drain goes back to.")


class NodeShape(serializers.ModelSerializer):
    """`generation` is of the newest spec, `observed_generation` of the one the agent holds."""

    status = serializers.SerializerMethodField()
    drain = serializers.SerializerMethodField(help_text="null: it does not drain.")
    labels = serializers.DictField(child=serializers.CharField())
    owners = OwnersField()

    class Meta:
        model = Node
        fields = [
            "id", "name", "address", "labels", "status", "schedulable", "draining", "drain", "revoked",
            "created_at", "last_seen", "clock_skew_s", "period_s", "generation", "observed_generation", "agent_version",
            "engine_version", "driver", "simulated", "memory_bytes", "cpu_count", "owners",
        ]  # fmt: skip
        extra_kwargs = {"clock_skew_s": {"help_text": "The agent's clock minus the server's."}}

    @extend_schema_field(serializers.ChoiceField(NODE_STATUSES))
    def get_status(self, node: Node) -> str:
        view = node_view(node, gpus=(), partitions=node.partitions.all())
        return health.node_status(view, time.time(), settings.SILENT_AFTER_S)

    @extend_schema_field(DrainShape(allow_null=True))
    def get_drain(self, node: Node) -> dict[str, Any] | None:
        return drain_facts(node, node.partitions.all())


def may_see_endpoints(context: dict[str, Any]) -> bool:
    """Asked for every row, looked up once a request."""
    if "endpoints" not in context:
        context["endpoints"] = roles.level_of(context["request"].user) >= roles.Level.OPERATOR
    return context["endpoints"]
