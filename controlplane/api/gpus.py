"""GPUs and CPU slots, as the agents report them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api import lists
from controlplane.api.filters import Filters, YesNo
from controlplane.api.lists import PlainList
from controlplane.api.qualifications import NEWEST, AcceptBody, QualifiesGpus
from controlplane.api.shapes import GpuShape
from controlplane.api.strict import Reason
from controlplane.fleet import services
from controlplane.fleet.models import Gpu


class GpuFilters(Filters):
    idle = YesNo(method="by_idle", help_text="true: without a deployment assigned to it.")
    free = YesNo(field_name="partition", lookup_expr="isnull", help_text="true: in no partition.")

    class Meta:
        model = Gpu
        fields = ["node", "partition", "uuid", "kind", "health", "present", "foreign"]

    def by_idle(self, queryset: QuerySet[Gpu], name: str, value: bool) -> QuerySet[Gpu]:
        return queryset.filter(partition__deployment__isnull=value)


@extend_schema_view(
    list=extend_schema(
        summary="List GPUs",
        description="By node and index. On a host without GPUs these are its CPU slots. What they do right now is in "
        "/api/v1/live, what they did in /api/v1/samples.",
    ),
    retrieve=extend_schema(summary="One GPU"),
)
class Gpus(QualifiesGpus, PlainList, ListModelMixin, RetrieveModelMixin):
    """One GPU or CPU slot as its agent last reported it."""

    noun = "GPU"
    columns = lists.GPU
    role_actions = dict.fromkeys(("destroy", "qualify", "cancel_qualification", "accept", "unaccept"), "node.change")
    bodies = {"qualify": Reason, "cancel_qualification": Reason, "accept": AcceptBody, "unaccept": Reason}
    queryset = Gpu.objects.select_related("node", "partition").prefetch_related(NEWEST)
    serializer_class = GpuShape
    filterset_class = GpuFilters
    ordering = ["node__name", "index"]
    ordering_fields = ["id", "index", "memory_bytes", "name", "health"]

    def listed(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return lists.gpus(rows)

    @extend_schema(
        summary="Forget a GPU",
        description="Deletes a GPU that its node no longer reports, with its samples.",
        responses={204: OpenApiResponse(description="It is forgotten.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.forget_gpu(self.id, actor=self.actor)
        return Response(status=HTTPStatus.NO_CONTENT)
