"""Who changed what, when and why, and what agents saw."""

from __future__ import annotations

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from controlplane.api.filters import Filters, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import Resource
from controlplane.api.shapes import Facts
from controlplane.audit.models import AuditEvent


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
    actor = filters.CharFilter(field_name="actor_name")

    class Meta:
        model = AuditEvent
        fields = ["source", "verb", "subject_type", "subject_id", "subject_name", "request_id"]


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
