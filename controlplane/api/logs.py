"""Logs of engines, agents and our own processes: read on, searched, followed as a stream, taken away as a file."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, NotFound, Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api import log_streams
from controlplane.api.live_shapes import LogLineShape, LogShape, ProcessesShape
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.domain import health, log_lines
from controlplane.domain.log_lines import LogLevel
from controlplane.fleet.models import Node, Partition
from controlplane.telemetry import log_pieces, logs, process_log, valkey
from controlplane.telemetry.log_pieces import NotSent, Which
from controlplane.telemetry.logs import LogPiece, Source

LONGEST_AGO_S = 7 * 86400
ANSWERS = {
    (200, "application/json"): LogShape,
    (200, "application/x-ndjson"): LogLineShape,
    (200, "text/plain"): OpenApiTypes.STR,
}
HOW = (
    "Asking for it makes its owner send it for the next seconds: ask again from `next_offset` each second or two, or "
    "let `follow=true` do that: one JSON object a line, for ten minutes at most. `download=true` gives the newest 16 "
    "MiB as a file. Secrets are starred out where the log is written."
)


class LogsUnavailable(APIException):
    status_code = 503
    default_code = "logs_unavailable"
    default_detail = "Logs pass through the broker, which does not answer. The file on the node is complete."
    wait = 2


class LogNotSent(APIException):
    status_code = 503
    default_code = "log_not_sent"
    wait = 5


class LogsQuery(serializers.Serializer):
    offset = serializers.IntegerField(
        required=False, default=logs.TAIL, min_value=logs.TAIL, max_value=2**62, help_text="-1 or none: the tail."
    )
    search = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=log_lines.LONGEST_SEARCH, trim_whitespace=False,
        help_text="Only lines that contain this, in any case. It is no pattern.",
    )  # fmt: skip
    level = serializers.ChoiceField(
        log_lines.LEVELS, required=False, default="debug", help_text="Only lines at least as grave."
    )
    since_s = serializers.FloatField(
        required=False, min_value=0, max_value=LONGEST_AGO_S,
        help_text="What was written in so many seconds before now, as far as its owner knows: at most the newest 256 "
        "KiB.",
    )  # fmt: skip
    at = serializers.IntegerField(
        required=False, min_value=0, max_value=2**62,
        help_text="The 256 KiB from this byte on, however long ago that was, as far as its owner still has it.",
    )  # fmt: skip
    follow = serializers.BooleanField(required=False, default=False, help_text="As a stream, until you leave.")
    download = serializers.BooleanField(required=False, default=False, help_text="As a file.")

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["follow"] and given["download"]:
            raise ValidationError("Give one of follow and download.")
        if given["follow"] and (given.get("previous") or given.keys() & {"since_s", "at"}):
            text = "What is over does not go on: leave out `previous`, `since_s` and `at`."
            raise ValidationError({"follow": [text]})
        return given


class EngineLogsQuery(LogsQuery):
    previous = serializers.BooleanField(
        required=False, default=False, help_text="Of the engine that ran there before the present or last one."
    )


class _Logs(APIView):
    extra_errors = ("429",)

    def answer(
        self, request: Request, source: Source, name: str, *, silent: bool, shape: type[LogsQuery] = LogsQuery
    ) -> HttpResponseBase:
        asked = _query(request, shape)
        chosen = log_streams.Chosen(asked["search"], LogLevel[asked["level"].upper()])
        which = Which(asked.get("previous", False), asked.get("since_s"), asked.get("at"))
        lasting = asked["follow"] or asked["download"] or which != Which()
        slot = _slot(request) if lasting else None
        try:
            if slot is None:
                piece = _followed(source, asked["offset"])
            elif asked["follow"]:
                return log_streams.follow(request, source, asked["offset"], chosen, slot)
            elif silent:
                raise LogNotSent(f"{name} does not report, so its log cannot be fetched.")
            elif asked["download"]:
                return log_streams.file(request, log_pieces.whole(source, which), chosen, slot, name=name)
            else:
                piece = log_pieces.fetch(source, which)
        except valkey.Unreachable as error:
            raise LogsUnavailable from error
        except NotSent as error:
            raise LogNotSent(
                f"The log of {name} did not come. An agent of an earlier version cannot send it."
            ) from error
        finally:
            if slot and not slot.lent:
                slot.free()
        state = "silent" if silent else "waiting" if piece.at is None else "live"
        return Response(_shown(piece, chosen) | {"state": state})


class PartitionLogs(_Logs):
    role_action = "view"

    @extend_schema(
        operation_id="partitions_logs", summary="The log of a partition's engine", description=HOW, tags=["live"],
        parameters=[EngineLogsQuery], responses=ANSWERS,
    )  # fmt: skip
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        rows = Partition.objects.select_related("node").defer("node__spec")
        partition = get_object_or_404(rows, pk=pk)
        source = Source(partition.node_id, partition.pk)
        return self.answer(request, source, str(partition), silent=_silent(partition.node), shape=EngineLogsQuery)


class NodeLogs(_Logs):
    role_action = "log.system"

    @extend_schema(
        operation_id="nodes_logs", summary="The log of a node's agent", description=HOW, tags=["live"],
        parameters=[LogsQuery], responses=ANSWERS,
    )  # fmt: skip
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        node = get_object_or_404(Node.objects.defer("spec"), pk=pk)
        return self.answer(request, Source(node.pk), node.name, silent=_silent(node))


class Processes(APIView):
    role_action = "log.system"

    @extend_schema(
        operation_id="processes",
        summary="The control plane's own processes",
        description="Web, gateway and worker processes that were heard a moment ago, and where their logs are read.",
        tags=["live"],
        responses=ProcessesShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        try:
            found = process_log.processes(time.time())
        except valkey.Unreachable as error:
            raise LogsUnavailable from error
        rows = [{"name": one.name, "kind": one.kind, "logs": f"/api/v1/processes/{one.name}/logs"} for one in found]
        return Response({"results": rows})


class ProcessLogs(_Logs):
    role_action = "log.system"

    @extend_schema(
        operation_id="processes_logs", summary="The log of one of the control plane's own processes",
        description=f"{HOW} A process keeps its newest MiB.", tags=["live"], parameters=[LogsQuery], responses=ANSWERS,
    )  # fmt: skip
    def get(self, request: Request, name: str) -> HttpResponseBase:
        _query(request, LogsQuery)
        try:
            known = {one.name for one in process_log.processes(time.time())}
        except valkey.Unreachable as error:
            raise LogsUnavailable from error
        if name not in known:
            raise NotFound(f"No process {name} was heard in the last seconds. GET /api/v1/processes lists them.")
        return self.answer(request, Source(name), name, silent=False)


def _query(request: Request, shape: type[serializers.Serializer]) -> dict[str, Any]:
    query = shape(data=request.query_params.dict())
    refuse_unknown_parameters(request, set(query.fields))
    query.is_valid(raise_exception=True)
    return query.validated_data


def _slot(request: Request) -> log_streams.Slot:
    if slot := log_streams.slot(request.user.pk):
        return slot
    raise Throttled(wait=5, detail="You follow or fetch as many logs as one may at a time. Close one.")


def _followed(source: Source, offset: int) -> LogPiece:
    logs.want(source)
    return logs.read(source, offset)


def _shown(piece: LogPiece, chosen: log_streams.Chosen) -> dict[str, Any]:
    found = list(chosen.of(piece))
    return {
        "offset": piece.offset,
        "next_offset": piece.next_offset,
        "text": "".join(f"{line.text}\n" for line in found) if chosen.some else piece.text,
        "levels": "".join(line.level.name[0].lower() for line in found),
        "at": piece.at,
    }


def _silent(node: Node) -> bool:
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    return health.is_silent(last_seen, time.time(), settings.SILENT_AFTER_S)
