"""The fleet as it is now, samples over time, and engine logs."""

from __future__ import annotations

import gzip
import math
import time
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.cache import patch_vary_headers
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.live_shapes import LiveShape, LogShape, SamplesShape
from controlplane.api.strict import Id, refuse_unknown_parameters
from controlplane.audit import roles
from controlplane.domain import health
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.gateway.records import live_summary
from controlplane.telemetry import live, logs, series, valkey

DEFAULT_SPAN_S = 15 * 60
LAST_MOMENT = 2**32
WORTH_PACKING = 100_000  # bytes


class LogsUnavailable(APIException):
    status_code = 503
    default_code = "logs_unavailable"
    default_detail = "Logs pass through the broker, which does not answer. The file on the node is complete."
    wait = 2


@extend_schema_field(OpenApiTypes.STR)
class Moment(serializers.Field):
    """Unix seconds, or ISO 8601 with a time zone."""

    default_error_messages = {"invalid": "Give unix seconds, or a time as 2026-01-31T12:00:00Z."}

    def to_internal_value(self, data: Any) -> float:
        at = _seconds(str(data))
        if at is None or not 0 <= at < LAST_MOMENT:
            self.fail("invalid")
        return at

    def to_representation(self, value: float) -> float:
        return value


class SamplesQuery(serializers.Serializer):
    node = Id(required=False, help_text="All its GPUs, or all its partitions. Give one of node, gpu, partition.")
    gpu = Id(required=False)
    partition = Id(required=False)
    metric = serializers.ChoiceField(list(series.METRICS))
    to = Moment(required=False, help_text="Unix seconds or ISO 8601. Default: now.")
    step = serializers.IntegerField(required=False, min_value=1, max_value=86400, help_text="Seconds between points.")

    def get_fields(self) -> dict[str, serializers.Field]:
        begin = Moment(required=False, help_text="Default: 15 minutes before `to`.")
        return {**super().get_fields(), "from": begin}

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if len({"node", "gpu", "partition"} & given.keys()) != 1:
            raise ValidationError("Give exactly one of node, gpu and partition.")
        given.setdefault("to", time.time())
        given.setdefault("from", given["to"] - DEFAULT_SPAN_S)
        if given["from"] >= given["to"]:
            raise ValidationError({"from": ["It must lie before `to`."]})
        if given["to"] - given["from"] > settings.SAMPLE_KEEP_H * 3600:
            raise ValidationError({"from": [f"Samples are kept for {settings.SAMPLE_KEEP_H} hours; ask for less."]})
        return given


class LogsQuery(serializers.Serializer):
    offset = serializers.IntegerField(
        required=False, default=logs.TAIL, min_value=logs.TAIL, max_value=2**62, help_text="-1 or none: the tail."
    )


class Live(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="live",
        summary="The fleet as it is now",
        description="All nodes with their GPUs, partitions and latest figures at one moment. Null is unknown.",
        tags=["live"],
        responses=LiveShape,
    )
    def get(self, request: Request) -> HttpResponse:
        refuse_unknown_parameters(request, set())
        endpoints = roles.level_of(request.user) >= roles.Level.OPERATOR
        found = live.snapshot(summary=live_summary, endpoints=endpoints)
        return _json(request, msgspec.json.encode(found))


class Samples(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="samples",
        summary="Samples over time",
        description="Means per step of one metric, and the changes in that time. Gaps are points without a value.",
        tags=["live"],
        parameters=[SamplesQuery],
        responses=SamplesShape,
    )
    def get(self, request: Request) -> Response:
        asked = _query(request, SamplesQuery)
        over = series.span(asked["from"], asked["to"], asked.get("step"), time.time())
        return Response(series.read(_subject(asked), asked["metric"], over))


class PartitionLogs(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="partitions_logs",
        summary="The log of a partition's engine",
        description="Asking for it makes the node's agent send it for the next seconds: ask again each second or two.",
        tags=["live"],
        parameters=[LogsQuery],
        responses=LogShape,
    )
    def get(self, request: Request, pk: int) -> Response:
        offset = _query(request, LogsQuery)["offset"]
        partition = get_object_or_404(Partition.objects.select_related("node").defer("node__spec"), pk=pk)
        try:
            logs.want(partition.node_id, partition.pk)
            piece = logs.read(partition.pk, offset)
        except valkey.Unreachable as error:
            raise LogsUnavailable from error
        return Response(
            {
                "offset": piece.offset,
                "next_offset": piece.next_offset,
                "text": piece.text,
                "at": piece.at,
                "state": _state(partition.node, piece),
            }
        )


def _json(request: Request, body: bytes) -> HttpResponse:
    """A large fleet is megabytes of much the same words: a tenth of it goes over the wire to who can unpack it."""
    answer = HttpResponse(body, content_type="application/json")
    if len(body) > WORTH_PACKING and "gzip" in request.headers.get("Accept-Encoding", ""):
        answer.content = gzip.compress(body, 1)
        answer["Content-Encoding"] = "gzip"
    patch_vary_headers(answer, ["Accept-Encoding"])
    return answer


def _query(request: Request, shape: type[serializers.Serializer]) -> dict[str, Any]:
    query = shape(data=request.query_params.dict())
    refuse_unknown_parameters(request, set(query.fields))
    query.is_valid(raise_exception=True)
    return query.validated_data


def _subject(asked: dict[str, Any]) -> series.Subject:
    if "node" in asked:
        return series.of_node(get_object_or_404(Node.objects.defer("spec"), pk=asked["node"]))
    if "gpu" in asked:
        return series.of_gpu(get_object_or_404(Gpu.objects.select_related("partition"), pk=asked["gpu"]))
    return series.of_partition(get_object_or_404(Partition, pk=asked["partition"]))


def _state(node: Node, piece: logs.LogPiece) -> str:
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    if health.is_silent(last_seen, time.time(), settings.SILENT_AFTER_S):
        return "silent"
    return "waiting" if piece.at is None else "live"


def _seconds(text: str) -> float | None:
    try:
        at = float(text)
        return at if math.isfinite(at) else None
    except ValueError:
        moment = _moment(text)
    return None if moment is None or is_naive(moment) else moment.timestamp()


def _moment(text: str) -> Any:
    try:
        return parse_datetime(text)
    except ValueError:  # well formed, but no such day
        return None
