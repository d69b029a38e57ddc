"""Nodes: what is known of them, and what people decide about whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db.models import Prefetch, Q, QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
)
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import lists
from controlplane.api.change_shapes import ChangeShape
from controlplane.api.drains import DRAIN, DrainBody, DrainPreviewShape, agreed_version
from controlplane.api.filters import Filters, YesNo
from controlplane.api.lists import PlainList
from controlplane.api.node_bodies import LabelsBody, PlanBody, SplitBody
from controlplane.api.owners import OwnersBody, WithOwners
from controlplane.api.qualifications import NEWEST, QualifiesNodes
from controlplane.api.resource import DRY_RUN, REASON
from controlplane.api.shapes import Facts, GpuShape, NodeShape, PartitionShape
from controlplane.api.strict import Reason
from controlplane.api.weights import TellsNodesWeights, WantWeightsBody
from controlplane.audit import roles
from controlplane.fleet import selectors, services
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.planning import load


class NodeDetail(NodeShape):
    gpus = GpuShape(many=True)
    partitions = PartitionShape(many=True)
    spec = Facts(allow_null=True, help_text="What the agent gets, secrets blanked. null: never published.")

    class Meta(NodeShape.Meta):
        fields = [*NodeShape.Meta.fields, "gpus", "partitions", "spec"]


class NodeFilters(Filters):
    silent = YesNo(method="by_silence", help_text="true: not heard of lately, or never.")
    label = filters.CharFilter(method="by_label", help_text="key=value")

    class Meta:
        model = Node
        fields = ["name", "schedulable", "draining", "revoked", "simulated", "engine_version", "agent_version"]

    def by_silence(self, queryset: QuerySet[Node], name: str, value: bool) -> QuerySet[Node]:
        silent = Q(last_seen=None) | Q(last_seen__lt=timezone.now() - timedelta(seconds=settings.SILENT_AFTER_S))
        return queryset.filter(silent if value else ~silent)

    def by_label(self, queryset: QuerySet[Node], name: str, value: str) -> QuerySet[Node]:
        key, equals, wanted = value.partition("=")
        if not key or not equals:
            raise serializers.ValidationError({"label": ["Write it as key=value."]})
        return queryset.annotate(label=Cast(KeyTextTransform(key, "labels"), TextField())).filter(label=wanted)


@extend_schema_view(
    list=extend_schema(
        summary="List nodes", description="By name; silent and revoked ones too, until they are removed."
    ),
    cordon=extend_schema(
        summary="Cordon a node", description="Nothing new is placed on it; what runs there goes on.", request=Reason
    ),
    uncordon=extend_schema(
        summary="Uncordon a node", description="It takes part again; what a drain had ended starts.", request=Reason
    ),
    drain=extend_schema(
        summary="Drain a node",
        description=DRAIN,
        parameters=[DRY_RUN],
        request=DrainBody,
        responses={
            200: PolymorphicProxySerializer(
                component_name="NodeOrDrainPreview",
                serializers=[NodeShape, DrainPreviewShape],
                resource_type_field_name=None,
            ),
            201: ChangeShape,
        },
        examples=[
            OpenApiExample("ten minutes", value={"deadline_s": 600, "reason": "new fan"}, request_only=True),
            OpenApiExample("elsewhere first", value={"move": True, "version": 41}, request_only=True),
        ],
    ),
    cancel_drain=extend_schema(
        summary="Cancel a drain",
        description="The node is again as it was before the drain, schedulable or cordoned. Engines that still drain "
        "serve again; those that have ended start. Nothing happens where it does not drain.",
        request=Reason,
    ),
    owners=extend_schema(
        summary="Keep a node to its owners",
        description="From now on they and admins alone may cordon, drain and split it, and assign its partitions.",
        request=OwnersBody,
        responses=NodeShape,
        examples=[OpenApiExample("nobody but admins", value={"owners": []}, request_only=True)],
    ),
    revoke=extend_schema(
        summary="Revoke a node",
        description="Its credentials open nothing more; its agent ends its engines and itself. Not to be undone: "
        "remove the node and join it anew.",
        request=Reason,
    ),
)
class Nodes(QualifiesNodes, TellsNodesWeights, WithOwners, PlainList, ListModelMixin):
    """A host with one agent."""

    noun = "node"
    columns = lists.NODE
    role_actions = {
        "partial_update": "node.change",
        "destroy": "node.remove",
        "cordon": "node.cordon",
        "uncordon": "node.cordon",
        "drain": "node.cordon",
        "cancel_drain": "node.cordon",
        "revoke": "node.revoke",
        "owners": "owners.change",
        "split": "partition.change",
        "plan": "partition.assign",
        "qualify": "node.change",
        "want_weights": "node.change",
    }
    queryset = Node.objects.defer("spec").prefetch_related(
        Prefetch("partitions", Partition.objects.select_related("deployment")), "owners"
    )
    serializer_class = NodeShape
    filterset_class = NodeFilters
    ordering = ["name"]
    ordering_fields = ["id", "name", "last_seen", "created_at", "memory_bytes"]
    parameters = {"retrieve": {"secrets"}, "destroy": {"reason"}, "drain": {"dry_run"}}
    preview_actions = {"drain": "view"}
    bodies = {
        "partial_update": LabelsBody,
        "cordon": Reason,
        "uncordon": Reason,
        "drain": DrainBody,
        "cancel_drain": Reason,
        "revoke": Reason,
        "owners": OwnersBody,
        "split": SplitBody,
        "plan": PlanBody,
        "qualify": Reason,
        "want_weights": WantWeightsBody,
    }
    set_owners = services.set_node_owners

    def listed(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return lists.nodes(rows)

    @extend_schema(
        summary="One node",
        description="With its GPUs, its partitions and the spec that its agent gets.",
        parameters=[
            OpenApiParameter("secrets", OpenApiTypes.BOOL, description="Show the spec with its engine keys. Admins.")
        ],
        responses=NodeDetail,
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        secrets = self.flag("secrets")
        if secrets and not roles.allows(request.user, "spec.secrets"):
            raise PermissionDenied("Only an admin may see the secrets of a spec.")
        node = self.get_object()
        shown = NodeShape(node, context=self.get_serializer_context()).data
        gpus, partitions = self._parts(node)
        spec = node.spec if secrets else selectors.redacted_spec(node)
        return Response({**shown, "gpus": gpus, "partitions": partitions, "spec": spec})

    @extend_schema(
        summary="Change a node's labels",
        description="All of them at once: labels that are not sent go.",
        request=LabelsBody,
        responses=NodeShape,
        examples=[OpenApiExample("by rack", value={"labels": {"rack": "b12", "zone": "east"}}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.label(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Remove a node",
        description="Forgets it with its GPUs, partitions and samples. Refused while anything is assigned to it or "
        "runs on it. An agent that still runs there must join again.",
        parameters=[REASON],
        responses={204: OpenApiResponse(description="It is removed.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.remove_node(self.id, actor=self.actor, reason=self.reason())
        return Response(status=HTTPStatus.NO_CONTENT)

    @action(detail=True, methods=["post"])
    def cordon(self, request: Request, pk: str) -> Response:
        services.cordon(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @action(detail=True, methods=["post"])
    def uncordon(self, request: Request, pk: str) -> Response:
        services.uncordon(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @action(detail=True, methods=["post"])
    def drain(self, request: Request, pk: str) -> Response:
        body = self.body()
        deadline_s = body.get("deadline_s")
        if self.flag("dry_run"):
            seen = services.preview_drain(
                self.id, actor=self.actor, move=body["move"], deadline_s=deadline_s, live=load.live()
            )
            return Response(DrainPreviewShape(seen).data)
        if not body["move"]:
            services.drain(self.id, actor=self.actor, reason=body["reason"], deadline_s=deadline_s)
            return self.shown()
        agreed = {"reason": body["reason"], "force": body["force"], "version": agreed_version(body)}
        made = services.drain_with_moves(self.id, **agreed, deadline_s=deadline_s, actor=self.actor, live=load.live())
        return Response(ChangeShape(made).data, HTTPStatus.CREATED) if made else self.shown()

    @action(detail=True, methods=["post"])
    def cancel_drain(self, request: Request, pk: str) -> Response:
        services.cancel_drain(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        services.revoke_node(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Split a node",
        description="Divides all its GPUs anew into partitions p0, p1, ...; those that were there go. Refused while "
        "one of them is assigned or has a process.",
        request=SplitBody,
        responses={201: PartitionShape(many=True)},
        filters=False,
        examples=[
            OpenApiExample("four of two", value={"preset": "4x2"}, request_only=True),
            OpenApiExample(
                "one of four, four of one", value={"groups": [[0, 1, 2, 3], [4], [5], [6], [7]]}, request_only=True
            ),
        ],
    )
    @action(detail=True, methods=["post"], pagination_class=None)
    def split(self, request: Request, pk: str) -> Response:
        services.split_node(self.id, **self.body(), actor=self.actor)
        _, partitions = self._parts(self.get_object())
        return Response(partitions, HTTPStatus.CREATED)

    @extend_schema(
        summary="Lay a plan over a node",
        description="A ready-made split with a role for each partition, as 4 prefill and 4 decode on 8 GPUs: all of it "
        "is done or nothing.",
        request=PlanBody,
        responses={201: PartitionShape(many=True)},
        filters=False,
        examples=[
            OpenApiExample(
                "gpt-oss-120b on 8 GPUs",
                value={"plan": "gpt-oss-120b-4p4d", "deployment": 1, "reason": "launch"},
                request_only=True,
            )
        ],
    )
    @action(detail=True, methods=["post"], pagination_class=None)
    def plan(self, request: Request, pk: str) -> Response:
        body = self.body()
        services.apply_plan(self.id, deployment_id=body.pop("deployment"), **body, actor=self.actor)
        _, partitions = self._parts(self.get_object())
        return Response(partitions, HTTPStatus.CREATED)

    def _parts(self, node: Node) -> tuple[list[dict], list[dict]]:
        context = self.get_serializer_context()
        gpus = (
            Gpu.objects.filter(node=node).select_related("node", "partition").prefetch_related(NEWEST).order_by("index")
        )
        partitions = (
            Partition.objects.filter(node=node)
            .select_related("node", "deployment")
            .prefetch_related(Prefetch("gpus", queryset=Gpu.objects.order_by("index")))
        )
        return GpuShape(gpus, many=True).data, PartitionShape(partitions, many=True, context=context).data
