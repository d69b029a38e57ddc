"""The fleet as it is now, and engine logs."""

from __future__ import annotations

import gzip
import time
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.cache import patch_vary_headers
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.live_shapes import LiveShape, LogShape
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.audit import roles
from controlplane.domain import health
from controlplane.fleet.models import Node, Partition
from controlplane.gateway.records import live_summary
from controlplane.telemetry import live, logs, valkey

WORTH_PACKING = 100_000  # bytes


class LogsUnavailable(APIException):
    status_code = 503
    default_code = "logs_unavailable"
    default_detail = "Logs pass through the broker, which does not answer. The file on the node is complete."
    wait = 2


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


def _state(node: Node, piece: logs.LogPiece) -> str:
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    if health.is_silent(last_seen, time.time(), settings.SILENT_AFTER_S):
        return "silent"
    return "waiting" if piece.at is None else "live"
