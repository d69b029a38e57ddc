"""Registered models: weights, their facts, and where they would fit."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.filters import Filters
from controlplane.api.previews import FitShape
from controlplane.api.resource import DRY_RUN
from controlplane.api.shapes import Facts, Link
from controlplane.api.strict import Body
from controlplane.api.weights import TellsModelsWeights
from controlplane.fleet import services
from controlplane.fleet.models import RegisteredModel


class ModelShape(serializers.ModelSerializer):
    facts = Facts(help_text="Read from its files: layers, heads, dtype, bytes. Zero and empty mean unknown.")
    deployments = Link(many=True, help_text="What serves it.")

    class Meta:
        model = RegisteredModel
        fields = ["id", "name", "kind", "source", "revision", "facts", "deployments", "created_at"]


class ModelBody(Body):
    name = serializers.CharField(max_length=120)
    source = serializers.CharField(
        max_length=1024, help_text="A folder's full path, the same on the nodes, or a Hugging Face repository id."
    )
    revision = serializers.CharField(required=False, allow_blank=True, default="", max_length=64)


class FitQuestion(Body):
    """The question of a fit check, as query parameters."""

    tp = serializers.IntegerField(required=False, default=1, min_value=1, max_value=64)
    utilization = serializers.FloatField(required=False, default=0.9, min_value=0.05, max_value=1.0)
    concurrency = serializers.IntegerField(required=False, default=8, min_value=1, max_value=100_000)
    context_tokens = serializers.IntegerField(required=False, default=None, min_value=1, max_value=100_000_000)


class FitsShape(serializers.Serializer):
    fits = FitShape(many=True)


class RegisterPreview(FitsShape):
    facts = Facts()


FIT_PARAMETERS = [
    OpenApiParameter("tp", OpenApiTypes.INT, description="GPUs of the partition. Default 1."),
    OpenApiParameter("utilization", OpenApiTypes.FLOAT, description="Share of the memory it may take. Default 0.9."),
    OpenApiParameter("concurrency", OpenApiTypes.INT, description="Requests at once. Default 8."),
    OpenApiParameter("context_tokens", OpenApiTypes.INT, description="Tokens of each. Default: the model's context."),
]


class ModelFilters(Filters):
    class Meta:
        model = RegisteredModel
        fields = ["name", "kind", "source"]


@extend_schema_view(
    list=extend_schema(summary="List models", description="By name."),
    retrieve=extend_schema(summary="One model"),
)
class Models(ListModelMixin, RetrieveModelMixin, TellsModelsWeights):
    """Registered weights and their facts."""

    noun = "model"
    role_actions = {"create": "model.register", "destroy": "model.delete"}
    queryset = RegisteredModel.objects.prefetch_related("deployments")
    serializer_class = ModelShape
    filterset_class = ModelFilters
    ordering = ["name"]
    ordering_fields = ["id", "name", "created_at"]
    parameters = {"create": {"dry_run"}, "fit": {"tp", "utilization", "concurrency", "context_tokens"}}
    bodies = {"create": ModelBody}

    @extend_schema(
        summary="Register a model",
        description="Reads its facts from the folder, or from this host's cache of the repository. With `dry_run=true` "
        "nothing is saved and the answer is a RegisterPreview: the facts, and where it would fit.",
        parameters=[DRY_RUN],
        request=ModelBody,
        responses={
            200: OpenApiResponse(RegisterPreview, description="With `dry_run=true`: nothing was saved."),
            201: ModelShape,
        },
        examples=[
            OpenApiExample("a folder", value={"name": "smollm2-135m", "source": "/srv/models/smollm2-135m-instruct"},
                           request_only=True),
            OpenApiExample("a repository", value={"name": "gpt-oss-120b", "source": "openai/gpt-oss-120b"},
                           request_only=True),
        ],
    )  # fmt: skip
    def create(self, request: Request) -> Response:
        body = self.body()
        if self.flag("dry_run"):
            facts = services.preview_register(**body)
            return Response({"facts": facts.to_dict(), "fits": _shown(services.check_fit(facts))})
        model = services.register_model(**body, actor=self.actor)
        return self.shown(model.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Delete a model",
        description="Forgets it; its files are not touched. Refused while a deployment serves it.",
        responses={204: OpenApiResponse(description="It is forgotten.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_model(self.id, actor=self.actor)
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(
        summary="Where a model would fit",
        description="For each kind of GPU in the fleet: whether a replica would fit, with the numbers of one GPU.",
        parameters=FIT_PARAMETERS,
        responses=FitsShape,
        filters=False,
    )
    @action(detail=True, methods=["get"], pagination_class=None)
    def fit(self, request: Request, pk: str) -> Response:
        question = FitQuestion(data=request.query_params.dict())
        question.is_valid(raise_exception=True)
        return Response({"fits": _shown(services.check_fit(self.id, **question.validated_data))})


def _shown(fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return FitShape(fits, many=True).data
