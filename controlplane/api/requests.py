"""What went through the gateway: one record a request, and the demand of each minute."""

from __future__ import annotations

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from controlplane.api.filters import Filters, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import Resource
from controlplane.gateway.models import DemandMinute, RequestRecord

OUTCOMES = [(word, word) for word in ("ok", "client_error", "error", "cancelled", "rejected")]
PATHS = [(word, word) for word in ("two_step", "direct", "aggregated", "overflow")]


class RequestShape(serializers.ModelSerializer):
    api_key = serializers.CharField(source="api_key.name", default=None, allow_null=True, help_text="The key's name.")
    decode_ms = serializers.FloatField(
        read_only=True, allow_null=True, help_text="From decode's first byte to the end; null of what was not streamed."
    )

    class Meta:
        model = RequestRecord
        fields = [
            "id", "at", "request_id", "api_key", "deployment", "kind", "streamed", "outcome", "status", "error",
            "path", "prefill", "decode", "attempts", "continued", "continued_from",
            "prompt_tokens", "completion_tokens", "cached_tokens",
            "prefill_ms", "transfer_ms", "decode_ms", "ttft_ms", "itl_ms", "total_ms", "wake_ms",
        ]  # fmt: skip
        extra_kwargs = {
            "at": {"help_text": "When it arrived."},
            "prefill": {"help_text": "node/partition"},
            "decode": {"help_text": "node/partition"},
            "continued": {"help_text": "Times that its stream went on on another engine."},
            "continued_from": {"help_text": "The engines that it left, in their order."},
            "transfer_ms": {"help_text": "From prefill's answer to decode's first byte."},
            "wake_ms": {"help_text": "It waited so long for its model to be woken; null: one was there."},
            "itl_ms": {"help_text": "Mean time between tokens."},
        }


class RequestFilters(Filters):
    since = since("at")
    until = until("at")
    outcome = filters.ChoiceFilter(choices=OUTCOMES)
    path = filters.ChoiceFilter(choices=PATHS)
    min_total_ms = filters.NumberFilter(field_name="total_ms", lookup_expr="gte", help_text="The slow ones.")

    class Meta:
        model = RequestRecord
        fields = ["deployment", "request_id", "api_key", "status", "prefill", "decode", "streamed"]


@extend_schema_view(
    list=extend_schema(
        summary="List requests",
        description=(
            "Newest first. A record tells tokens, times, the pair that served it and the outcome; never the text. "
            "Null means that it was not measured. Follow `next` for older ones."
        ),
    ),
    retrieve=extend_schema(summary="One request"),
)
class Requests(ListModelMixin, RetrieveModelMixin, Resource):
    """One record a request."""

    noun = "request"
    queryset = RequestRecord.objects.select_related("api_key")
    serializer_class = RequestShape
    filterset_class = RequestFilters
    pagination_class = Cursor
    ordering = ["-id"]


class DemandShape(serializers.ModelSerializer):
    class Meta:
        model = DemandMinute
        fields = [
            "deployment", "minute", "arrivals", "active_s", "peak_in_flight",
            "prompt_tokens", "completion_tokens", "errors",
        ]  # fmt: skip
        extra_kwargs = {"active_s": {"help_text": "Seconds of the minute with a request in flight."}}


class DemandFilters(Filters):
    since = since("minute")
    until = until("minute")

    class Meta:
        model = DemandMinute
        fields = ["deployment"]


class DemandCursor(Cursor):
    ordering = ("-minute", "deployment")


@extend_schema_view(
    list=extend_schema(
        summary="Demand by minute",
        description="What was asked of each deployment, by minute, newest first. Minutes without any are absent.",
    )
)
class Demand(ListModelMixin, Resource):
    """Demand by minute."""

    noun = "minute of demand"
    queryset = DemandMinute.objects.all()
    serializer_class = DemandShape
    filterset_class = DemandFilters
    pagination_class = DemandCursor
