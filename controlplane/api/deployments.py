"""Deployments: how registered models are served."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.owners import OwnersBody, OwnersField, WithOwners
from controlplane.api.resource import Resource
from controlplane.api.shapes import ROLES, Link
from controlplane.api.strict import Body, Id
from controlplane.domain.health import is_confirmed
from controlplane.fleet import services
from controlplane.fleet.facts import partition_view
from controlplane.fleet.models import Deployment

LARGEST = 2_147_483_647

LENT = "lent"  # beside the roles: what the pool lends, and takes back


class RoleCount(serializers.Serializer):
    assigned = serializers.IntegerField(help_text="Partitions that shall run it.")
    confirmed = serializers.IntegerField(help_text="Those whose agent says ready, of exactly what is desired.")


class RoleCounts(serializers.Serializer):
    prefill = RoleCount()
    decode = RoleCount()
    aggregated = RoleCount()
    lent = RoleCount(help_text="Slots of the pool that it has for a while; they count for no role.")


class Words(serializers.ListField):
    """A list of texts that are taken exactly as they are."""

    child = serializers.CharField(max_length=4096, trim_whitespace=False)


OVERFLOW = (
    "Dedicated: when its engines have as many requests as they take, or none is ready, one more is started in a slot "
    "of the pool that pooled models can do without."
)
POOL_SHAPE = (
    "In the pool: woken as one aggregated engine, in one slot, or as a pair of a prefill and a decode engine, in two. "
    "A change takes effect the next time it is woken."
)
KEEP_ALIVE = "In the pool it counts as active for so long after its last request. Null: as learned, or as configured."
PRIORITY = "In the pool it takes no slot of a model with a higher priority."


class DeploymentShape(serializers.ModelSerializer):
    model = Link()
    aliases = Words()
    engine_args = Words()
    prefill_args = Words()
    decode_args = Words()
    replicas = serializers.SerializerMethodField()
    owners = OwnersField()

    class Meta:
        model = Deployment
        fields = [
            "id", "name", "aliases", "model", "mode", "engine", "engine_args", "prefill_args", "decode_args",
            "kv_connector", "min_transfer_tokens", "convertible",
            "prefill_max_requests", "decode_max_requests", "aggregated_max_requests", "drain_s", "slo_ttft_ms",
            "slo_itl_ms",
            "min_prefill", "max_prefill", "min_decode", "max_decode", "min_aggregated", "max_aggregated",
            "overflow", "pool_shape", "keep_alive_s", "priority", "replicas", "owners", "created_at",
        ]  # fmt: skip
        extra_kwargs = {
            "name": {"help_text": "The served name: what clients put in `model`."},
            "engine_args": {"help_text": "For all roles; prefill_args and decode_args come after them."},
            "min_transfer_tokens": {"help_text": "Shorter prompts go straight to decode."},
            "overflow": {"help_text": OVERFLOW},
            "pool_shape": {"help_text": POOL_SHAPE},
            "keep_alive_s": {"help_text": KEEP_ALIVE},
            "priority": {"help_text": PRIORITY},
        }

    def get_replicas(self, deployment: Deployment) -> RoleCounts:
        partitions = deployment.partitions.all()
        confirmed = {partition.pk for partition in partitions if is_confirmed(partition_view(partition, gpus=()))}
        counts = {}
        for role in (*ROLES, LENT):
            held = [row.pk for row in partitions if role == (LENT if row.overflow else row.role)]
            counts[role] = {"assigned": len(held), "confirmed": len(confirmed.intersection(held))}
        return counts


MOST_REQUESTS = (
    "Most requests that one gateway has in flight at one engine of the role; others wait in line. Null: no limit."
)


def _count(text: str, least: int = 0, most: int = LARGEST, **more: Any) -> serializers.IntegerField:
    return serializers.IntegerField(required=False, min_value=least, max_value=most, help_text=text, **more)


class DeploymentChange(Body):
    """Only what is sent changes."""

    name = serializers.CharField(required=False, max_length=120, help_text="What clients put in `model`.")
    model = Id(required=False, source="model_id", help_text="The registered model.")
    aliases = serializers.ListField(
        child=serializers.CharField(max_length=120), required=False, max_length=50, help_text="Further served names."
    )
    mode = serializers.ChoiceField(Deployment.Mode.choices, required=False)
    engine_args = Words(
        required=False,
        max_length=128,
        help_text="For all roles, as `--max-model-len=4096`. "
        "Those that run code or open files of nodes are for admins: 403.",
    )
    prefill_args = Words(required=False, max_length=128)
    decode_args = Words(required=False, max_length=128)
    kv_connector = serializers.CharField(required=False, max_length=40)
    min_transfer_tokens = _count("Shorter prompts go straight to decode.")
    convertible = serializers.BooleanField(
        required=False, help_text="One set of engine arguments for all roles, so that a flip never restarts an engine."
    )
    prefill_max_requests = _count(MOST_REQUESTS, least=1, allow_null=True)
    decode_max_requests = _count(MOST_REQUESTS, least=1, allow_null=True)
    aggregated_max_requests = _count(MOST_REQUESTS, least=1, allow_null=True)
    drain_s = _count("How long requests may take to end before their engine is ended.", most=3600)
    slo_ttft_ms = _count("Aim for the time to the first token.", least=1, allow_null=True)
    slo_itl_ms = _count("Aim for the time between tokens.", least=1, allow_null=True)
    min_prefill = _count("Replicas.")
    max_prefill = _count("Replicas; null: no limit.", allow_null=True)
    min_decode = _count("Replicas.")
    max_decode = _count("Replicas; null: no limit.", allow_null=True)
    min_aggregated = _count("Replicas.")
    max_aggregated = _count("Replicas; null: no limit.", allow_null=True)
    overflow = serializers.BooleanField(required=False, help_text=OVERFLOW)
    pool_shape = serializers.ChoiceField(Deployment.PoolShape.choices, required=False, help_text=POOL_SHAPE)
    keep_alive_s = _count(KEEP_ALIVE, allow_null=True)
    priority = _count(PRIORITY, least=-100, most=100)
    force = serializers.BooleanField(required=False, help_text="Do it though running engines are replaced at once.")


class DeploymentBody(DeploymentChange):
    """A new deployment; what is not sent takes its default."""

    name = serializers.CharField(max_length=120, help_text="What clients put in `model`.")
    model = Id(source="model_id", help_text="The registered model.")
    force = None


class DeploymentFilters(Filters):
    class Meta:
        model = Deployment
        fields = ["name", "model", "mode"]


@extend_schema_view(
    list=extend_schema(summary="List deployments", description="By name, with the replicas of each role."),
    retrieve=extend_schema(summary="One deployment"),
    owners=extend_schema(
        summary="Keep a deployment to its owners",
        description="From now on they and admins alone may change it, and say which partitions run it.",
        request=OwnersBody,
        responses=DeploymentShape,
        examples=[OpenApiExample("two of them", value={"owners": ["ana", "ben"]}, request_only=True)],
    ),
)
class Deployments(WithOwners, ListModelMixin, RetrieveModelMixin, Resource):
    """How a registered model is served."""

    noun = "deployment"
    role_actions = {
        "create": "deployment.change",
        "partial_update": "deployment.change",
        "destroy": "deployment.delete",
        "owners": "owners.change",
    }
    queryset = Deployment.objects.select_related("model").prefetch_related(
        "partitions__node", "partitions__deployment", "owners"
    )
    serializer_class = DeploymentShape
    filterset_class = DeploymentFilters
    ordering = ["name"]
    ordering_fields = ["id", "name", "created_at"]
    bodies = {"create": DeploymentBody, "partial_update": DeploymentChange, "owners": OwnersBody}
    set_owners = services.set_deployment_owners

    @extend_schema(
        summary="Make a deployment",
        description="Nothing runs until partitions are assigned to it. Engine arguments that the agent sets itself "
        "are refused, each with the reason.",
        request=DeploymentBody,
        responses={201: DeploymentShape},
        examples=[
            OpenApiExample(
                "with an aim",
                value={
                    "name": "smollm2-135m",
                    "model": 1,
                    "engine_args": ["--max-model-len=2048"],
                    "min_transfer_tokens": 64,
                    "slo_ttft_ms": 500,
                    "slo_itl_ms": 60,
                },
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        deployment = services.create_deployment(**self.body(), actor=self.actor)
        return self.shown(deployment.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Change a deployment",
        description="Only what is sent changes. What is in the engine's command line replaces running engines: that "
        "is refused unless `force` is true.",
        request=DeploymentChange,
        responses=DeploymentShape,
        examples=[OpenApiExample("a new aim", value={"slo_ttft_ms": 300}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.update_deployment(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Delete a deployment",
        description="Refused while a partition is assigned to it.",
        responses={204: OpenApiResponse(description="It is deleted.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_deployment(self.id, actor=self.actor)
        return Response(status=HTTPStatus.NO_CONTENT)
