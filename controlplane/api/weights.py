"""Which weights lie on which nodes and which shall, over REST."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.resource import Resource
from controlplane.api.strict import Reason
from controlplane.fleet import services, whereabouts
from controlplane.fleet.models import HeldWeights, WantedWeights
from controlplane.fleet.whereabouts import Whereabouts

STATES = [*(state.value for state in HeldWeights.State), "missing"]


class WantWeightsBody(Reason):
    model = serializers.IntegerField(min_value=1, help_text="Id of a registered model that is a repository.")
    wanted = serializers.BooleanField(default=True, help_text="false: take it back.")


class WantedShape(serializers.Serializer):
    """That the weights shall lie there, and how far the agent is."""

    cause = serializers.ChoiceField([cause.value for cause in WantedWeights.Cause])
    asked_by = serializers.CharField()
    asked_at = serializers.DateTimeField()
    chance = serializers.FloatField(allow_null=True, help_text="Of being asked for, where that is the cause.")
    state = serializers.ChoiceField(
        [state.value for state in WantedWeights.State],
        help_text="As the agent says while they do not lie there. Empty: it has said nothing, or they do.",
    )
    bytes = serializers.IntegerField(help_text="That have come, told every few seconds.")
    total_bytes = serializers.IntegerField(allow_null=True, help_text="To come in all. null: not known yet.")
    message = serializers.CharField(help_text="Why it failed. The agent tries again after a while.")


class WhereaboutsShape(serializers.Serializer):
    """A registered model's weights on one node: what lies there as its agent found it, and what shall."""

    model = serializers.CharField()
    node = serializers.CharField()
    state = serializers.ChoiceField(STATES, help_text="complete: all files are there, as long as they must be.")
    bytes = serializers.IntegerField(help_text="Of the weights that are there.")
    total_bytes = serializers.IntegerField(allow_null=True, help_text="When all are there. null: not known.")
    used_at = serializers.DateTimeField(allow_null=True, help_text="When an engine was last seen to use them.")
    checked_at = serializers.DateTimeField(
        allow_null=True, help_text="When the agent that fetched them compared every file with the hub's checksum."
    )
    message = serializers.CharField(help_text="What is missing or damaged.")
    wanted = WantedShape(allow_null=True, help_text="null: nobody wants them there ahead of their use.")


class WeightsShape(serializers.Serializer):
    weights = WhereaboutsShape(many=True)


class NodeWeightsShape(WeightsShape):
    fetch_room_bytes = serializers.IntegerField(
        allow_null=True, help_text="What fetched weights may come to there, by its cap and its disk. null: not told."
    )
    fetch_why_not = serializers.CharField(help_text="Why nothing is fetched there; empty: it is.")


class TellsNodesWeights(Resource):
    """For the resource of nodes."""

    @extend_schema(
        summary="Weights on a node",
        description="Registered models whose weights lie on the node, whole or in part, or shall lie there, by name.",
        responses=NodeWeightsShape,
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def weights(self, request: Request, pk: str) -> Response:
        return self._told()

    @extend_schema(
        summary="Fetch weights to a node",
        description="Its agent fetches them ahead of their use, one model after another, and keeps them until it is "
        "taken back with `wanted` false. Then they stay until room is needed. Refused for folders.",
        request=WantWeightsBody,
        responses=NodeWeightsShape,
        filters=False,
        examples=[
            OpenApiExample("ahead of a launch", value={"model": 1, "reason": "launch on Monday"}, request_only=True),
            OpenApiExample("take it back", value={"model": 1, "wanted": False}, request_only=True),
        ],
    )
    @weights.mapping.post
    def want_weights(self, request: Request, pk: str) -> Response:
        body = self.body()
        verb = services.fetch_weights if body["wanted"] else services.unfetch_weights
        verb(self.id, model_id=body["model"], actor=self.actor, reason=body["reason"])
        return self._told()

    def _told(self) -> Response:
        node = self.get_object()
        rows = _rows(whereabouts.of_node(node))
        told = {"fetch_room_bytes": node.fetch_room_bytes, "fetch_why_not": node.fetch_why_not}
        return Response(NodeWeightsShape({"weights": rows, **told}).data)


class TellsModelsWeights(Resource):
    """For the resource of models."""

    @extend_schema(
        summary="Where a model's weights lie",
        description="Nodes that hold them, whole or in part, or shall hold them, by name.",
        responses=WeightsShape,
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def weights(self, request: Request, pk: str) -> Response:
        return Response(WeightsShape({"weights": _rows(whereabouts.of_model(self.get_object()))}).data)


def _rows(found: Iterable[Whereabouts]) -> list[dict[str, Any]]:
    return [_row(one) for one in found]


def _row(one: Whereabouts) -> dict[str, Any]:
    held = one.held or HeldWeights(bytes=0)
    told = {name: getattr(held, name) for name in ("bytes", "total_bytes", "used_at", "checked_at", "message")}
    return {"model": one.model.name, "node": one.node.name, "state": one.state, **told, "wanted": one.wanted}
