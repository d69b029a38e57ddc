"""What an hour of a node's GPU costs, from when on."""

from __future__ import annotations

from http import HTTPStatus

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.resource import Resource
from controlplane.api.shapes import Link
from controlplane.api.strict import Reason
from controlplane.costs import services
from controlplane.costs.models import NodePrice

AMOUNT = "Of each of its GPUs or CPU slots; null: not known from then on."


class PriceShape(serializers.ModelSerializer):
    node = Link()
    per_gpu_hour = serializers.DecimalField(12, 4, coerce_to_string=False, allow_null=True, help_text=AMOUNT)

    class Meta:
        model = NodePrice
        fields = ["id", "node", "since", "per_gpu_hour"]


class SetPricesShape(serializers.Serializer):
    prices = PriceShape(many=True)


class PriceBody(Reason):
    nodes = serializers.ListField(
        child=serializers.CharField(max_length=63), max_length=5000, help_text="Names of nodes."
    )
    per_gpu_hour = serializers.DecimalField(
        12, 4, coerce_to_string=False, min_value=0, allow_null=True, help_text=AMOUNT
    )
    since = serializers.DateTimeField(
        required=False, allow_null=True, default=None,
        help_text="Taken to the beginning of its hour; null: now. Hours counted since then cost so much too.",
    )  # fmt: skip


class PriceFilters(Filters):
    class Meta:
        model = NodePrice
        fields = ["node"]


@extend_schema_view(
    list=extend_schema(summary="List prices", description="By node and time; each holds until the node's next.")
)
class Prices(ListModelMixin, Resource):
    """What an hour of a node's GPU costs, in the currency of `GET usage`."""

    noun = "price"
    role_actions = {"create": "price.set"}
    queryset = NodePrice.objects.select_related("node")
    serializer_class = PriceShape
    filterset_class = PriceFilters
    ordering = ["node__name", "since", "id"]
    ordering_fields = ["id", "since"]
    bodies = {"create": PriceBody}

    @extend_schema(
        summary="Set a price",
        description="Of one node or of many, all of them or none. A price of the same node and hour is replaced.",
        request=PriceBody,
        responses={201: SetPricesShape},
        examples=[
            OpenApiExample(
                "of two nodes", value={"nodes": ["gpu-01", "gpu-02"], "per_gpu_hour": 2.49}, request_only=True
            )
        ],
        filters=False,
    )
    def create(self, request: Request) -> Response:
        prices = services.set_price(**self.body(), actor=self.actor)
        return Response(SetPricesShape({"prices": prices}).data, HTTPStatus.CREATED)
