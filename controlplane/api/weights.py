"""Which weights lie on which nodes, over REST."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.resource import Resource
from controlplane.fleet import weights
from controlplane.fleet.models import HeldWeights

STATES = [state.value for state in HeldWeights.State]


class HeldWeightsShape(serializers.Serializer):
    """A registered model's weights on one node, as its agent found them."""

    model = serializers.CharField()
    node = serializers.CharField()
    state = serializers.ChoiceField(STATES, help_text="complete: all files are there, as long as they must be.")
    bytes = serializers.IntegerField(help_text="Of the weights that are there.")
    total_bytes = serializers.IntegerField(allow_null=True, help_text="When all are there. null: not known.")
    used_at = serializers.DateTimeField(allow_null=True, help_text="When an engine was last seen to use them.")
    message = serializers.CharField(help_text="What is missing or damaged.")


class WeightsShape(serializers.Serializer):
    weights = HeldWeightsShape(many=True)


class TellsNodesWeights(Resource):
    """For the resource of nodes."""

    @extend_schema(
        summary="Weights on a node",
        description="Registered models whose weights lie on the node, whole or in part, by name.",
        responses=WeightsShape,
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def weights(self, request: Request, pk: str) -> Response:
        node = self.get_object()
        return _answer([_shown(model.name, node.name, held) for model, held in weights.of_node(node)])


class TellsModelsWeights(Resource):
    """For the resource of models."""

    @extend_schema(
        summary="Where a model's weights lie",
        description="Nodes that hold them, whole or in part, by name.",
        responses=WeightsShape,
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def weights(self, request: Request, pk: str) -> Response:
        model = self.get_object()
        return _answer([_shown(model.name, held.node.name, held) for held in weights.of_model(model)])


def _shown(model: str, node: str, held: HeldWeights) -> dict[str, Any]:
    told = {name: getattr(held, name) for name in ("state", "bytes", "total_bytes", "used_at", "message")}
    return {"model": model, "node": node, **told}


def _answer(rows: list[dict[str, Any]]) -> Response:
    return Response(WeightsShape({"weights": rows}).data)
