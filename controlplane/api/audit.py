"""Who changed what, when and why, and what agents saw."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

from controlplane.api.filters import Filters, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import Resource
from controlplane.api.shapes import Facts
from controlplane.audit import export, search
from controlplane.audit.models import AppendOnly, AuditEvent


class EventShape(serializers.ModelSerializer):
    actor = serializers.CharField(source="actor_name", help_text="Kept when the account is gone.")
    before = Facts(allow_null=True)
    after = Facts(allow_null=True)

    class Meta:
        model = AuditEvent
        fields = [
            "id", "at", "actor", "source", "verb", "subject_type", "subject_id", "subject_name", "reason",
            "before", "after", "detail", "request_id", "address",
        ]  # fmt: skip
        extra_kwargs = {
            "source": {"help_text": "web and rest: a person or program; agent: seen on a node; system: by itself."},
            "detail": {"help_text": "For an engine that died: its last log lines."},
        }


class EventFilters(Filters):
    since = since("at")
    until = until("at")
    actor = filters.CharFilter(field_name="actor_name", lookup_expr="iexact")
    q = filters.CharFilter(
        method="containing",
        help_text="Each word stands in the actor, verb, subject, reason, details or request id, in any case.",
    )

    class Meta:
        model = AuditEvent
        fields = ["source", "verb", "subject_type", "subject_id", "subject_name", "request_id"]

    def containing(self, events: AppendOnly, _name: str, text: str) -> AppendOnly:
        return search.containing(events, text)


class ByParameter(DefaultContentNegotiation):
    """`?format=` names the kind of file here; REST framework would look for a renderer of that name."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


@extend_schema_view(
    list=extend_schema(
        summary="List events", description="Newest first; rows are only ever added. Follow `next` for older ones."
    ),
    retrieve=extend_schema(summary="One event"),
)
class Events(ListModelMixin, RetrieveModelMixin, Resource):
    """The audit trail."""

    noun = "event"
    queryset = AuditEvent.objects.all()
    serializer_class = EventShape
    filterset_class = EventFilters
    pagination_class = Cursor
    ordering = ["-id"]
    parameters = {"export": {"format", *EventFilters.base_filters}}

    @extend_schema(
        operation_id="events_export",
        summary="Export events",
        description=(
            "All that match, newest first, as one file that is written while it is read. In CSV a cell that a "
            "spreadsheet would take for a formula has a quote in front; JSON lines have everything as it is."
        ),
        parameters=[
            OpenApiParameter("format", OpenApiTypes.STR, enum=list(export.KINDS), description="csv if not given.")
        ],
        responses={
            (200, "text/csv"): OpenApiResponse(OpenApiTypes.STR, description="The file."),
            (200, "application/jsonl"): OpenApiResponse(OpenApiTypes.STR, description="The file."),
        },
        filters=True,
    )
    @action(detail=False, methods=["get"], content_negotiation_class=ByParameter, pagination_class=None)
    def export(self, request: Request) -> StreamingHttpResponse:
        kind = request.query_params.get("format", "csv")
        if kind not in export.KINDS:
            text = f"There is no format {kind}. Known: {', '.join(export.KINDS)}."
            raise ValidationError({"format": [ErrorDetail(text, code="unknown_format")]})
        return export.download(request, self.filter_queryset(self.get_queryset()), kind)
