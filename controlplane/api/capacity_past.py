"""Capacity, looking back: who was active when, and what holding ready came to."""

from __future__ import annotations

import time
from base64 import b64decode
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.dry_runs import is_dry_run
from controlplane.api.idempotency import Idempotent
from controlplane.api.parsers import MAX_BODY_BYTES
from controlplane.api.resource import DRY_RUN
from controlplane.api.strict import Body, Reason, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.fleet import pool_view
from controlplane.planning import uploads
from controlplane.planning.raster import MOST_MODELS, lately, raster
from controlplane.planning.spent import spent

MOST_DAYS = 62


class ActivityQuery(serializers.Serializer):
    day = serializers.DateField(required=False, help_text="UTC; today, if it is not given.")
    hours = serializers.IntegerField(
        required=False, min_value=1, max_value=48, help_text="The last so many hours instead of a day."
    )
    pooled = serializers.BooleanField(required=False, default=False, help_text="Only deployments that are pooled now.")
    models = serializers.IntegerField(
        required=False, default=60, min_value=1, max_value=MOST_MODELS, help_text="At most so many, most active first."
    )

    def validate(self, found: dict[str, Any]) -> dict[str, Any]:
        if "day" in found and "hours" in found:
            raise serializers.ValidationError("Give a day or hours, not both.")
        return found


class ActivityRow(serializers.Serializer):
    name = serializers.CharField()
    requests = serializers.IntegerField(help_text="That came in this time.")
    activations = serializers.IntegerField(help_text="How often it became active.")
    busy_s = serializers.IntegerField(help_text="With a request in flight, pauses under a minute included.")
    active_s = serializers.IntegerField(help_text="The same with keep-alive.")
    busy = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="[from, until], seconds from `start`; below 0: before it.",
    )


class ActivityShape(serializers.Serializer):
    day = serializers.DateField(help_text="That it begins on, UTC.")
    start = serializers.FloatField(help_text="Unix seconds: midnight, or so many hours ago.")
    span_s = serializers.FloatField(help_text="Of the day, or of the hours.")
    first_day = serializers.DateField(help_text="Of the record.")
    last_day = serializers.DateField()
    until_s = serializers.FloatField(help_text="What of it is over: seconds from `start`.")
    keep_alive_s = serializers.IntegerField()
    models = serializers.IntegerField(help_text="That were active in this time.")
    gaps = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField()), help_text="Of which nothing is on record."
    )
    rows = ActivityRow(many=True)


class SpentQuery(serializers.Serializer):
    days = serializers.IntegerField(
        required=False, default=14, min_value=1, max_value=MOST_DAYS, help_text="Of the past, today included."
    )


class SpentShape(serializers.Serializer):
    windows = serializers.IntegerField(help_text="Of ten minutes, that are over and on record.")
    replayed = serializers.IntegerField(help_text="Of them, those that were told afterwards.")
    short = serializers.IntegerField(help_text="In which more models were active than slots held.")
    used_h = serializers.FloatField(help_text="Slot-hours, by what was active as each window began.")
    held_h = serializers.FloatField(help_text="Slot-hours: the reserve, or the peak where that was more.")
    static_h = serializers.FloatField(help_text="Slot-hours, had the greatest peak been held all the while.")
    used_gpu_h = serializers.FloatField(help_text="The same in GPU-hours: a slot has as many as its model needs.")
    held_gpu_h = serializers.FloatField()
    static_gpu_h = serializers.FloatField()
    held_cost = serializers.FloatField(
        allow_null=True, help_text="Of the GPU-hours, by the policy's price; null without one."
    )
    idle_cost = serializers.FloatField(allow_null=True, help_text="Of what was held and not used.")
    covered = serializers.ListField(
        child=serializers.FloatField(allow_null=True), help_text="By level: the share that came to no more than told."
    )


class SpentDay(SpentShape):
    day = serializers.DateField()


class SpentList(serializers.Serializer):
    window_s = serializers.IntegerField()
    price = serializers.FloatField(allow_null=True, help_text="Of a GPU-hour, by the policy.")
    levels = serializers.ListField(child=serializers.CharField())
    days = SpentDay(many=True)
    total = SpentShape()


class TraceFields(Body):
    trace = serializers.CharField(
        required=False, max_length=MAX_BODY_BYTES, trim_whitespace=False, help_text="CSV or JSON lines, as text."
    )
    gzip_base64 = serializers.CharField(
        required=False, max_length=MAX_BODY_BYTES, help_text="Or the same, packed with gzip, as base64."
    )
    name = serializers.CharField(required=False, default="the trace", max_length=120, help_text="Where it is from.")

    def validate(self, found: dict[str, Any]) -> dict[str, Any]:
        if ("trace" in found) == ("gzip_base64" in found):
            raise serializers.ValidationError("Send one of trace and gzip_base64.")
        try:
            data = found["trace"].encode() if "trace" in found else b64decode(found["gzip_base64"], validate=True)
        except (UnicodeEncodeError, ValueError) as error:
            raise serializers.ValidationError("It is no text, or no base64.") from error
        return {**found, "data": data}


class TraceBody(TraceFields, Reason):
    shift = serializers.ChoiceField(
        ("none", "now"),
        required=False,
        default="none",
        help_text="now: by whole days, so that it ends within the last.",
    )


class ImportedActivityShape(serializers.Serializer):
    kept = serializers.BooleanField(help_text="false: it was only tried out.")
    models = serializers.IntegerField()
    requests = serializers.IntegerField()
    start = serializers.FloatField(help_text="Unix seconds.")
    end = serializers.FloatField()
    replaced = serializers.IntegerField(allow_null=True, help_text="Days of models that were there from an import.")
    note = serializers.CharField(help_text="What is to be known of how it was read.")


class Activity(Idempotent):
    role_actions = {"GET": "view", "POST": "capacity.import"}

    @extend_schema(
        operation_id="capacity_activity",
        summary="Who was active when, on one day or lately",
        description="Each model's busy times, the most active first: a raster of models and minutes.",
        tags=["capacity"],
        parameters=[ActivityQuery],
        responses=ActivityShape,
    )
    def get(self, request: Request) -> HttpResponse:
        query = ActivityQuery(data=request.query_params.dict())
        refuse_unknown_parameters(request, set(query.fields))
        query.is_valid(raise_exception=True)
        asked, now = query.validated_data, time.time()
        only = pool_view.names() if asked["pooled"] else None
        if "hours" in asked:
            return _json(lately(asked["hours"], asked["models"], now, only))
        day = asked.get("day") or datetime.fromtimestamp(now, UTC).date()
        return _json(raster(day, asked["models"], now, only))

    @extend_schema(
        operation_id="capacity_import",
        summary="Import a history",
        description="A request log or what docs/capacity.md tells. A model's day that was imported before is replaced, "
        "so that the same trace twice is once. Nothing is imported where a row cannot be read; the problem names it. "
        "With `dry_run=true` it is only read.",
        tags=["capacity"],
        parameters=[DRY_RUN],
        request=TraceBody,
        responses={200: ImportedActivityShape, 201: ImportedActivityShape},
        examples=[
            OpenApiExample(
                "two requests",
                value={"trace": "t_s,model,duration_s\n10,chat,2\n4000,code,1\n", "shift": "now"},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        refuse_unknown_parameters(request, {"dry_run"})
        if request.query_params.get("dry_run", "false").lower() not in {"true", "false", "1", "0"}:
            raise serializers.ValidationError({"dry_run": ["Say true or false."]})
        body = TraceBody(data=request.data)
        body.is_valid(raise_exception=True)
        given, now = body.validated_data, time.time()
        asked: dict[str, Any] = {"shift_to_now": given["shift"] == "now", "now": now}
        if is_dry_run(request):
            sent = uploads.read_sent(given["name"], given["data"], **asked)
            return Response(
                ImportedActivityShape({**asdict(sent.told), "replaced": None, "note": sent.note, "kept": False}).data
            )
        made, note = uploads.import_sent(
            given["name"], given["data"], **asked, reason=given["reason"], actor=actor_of(request, "rest")
        )
        return Response(ImportedActivityShape({**asdict(made), "note": note, "kept": True}).data, HTTPStatus.CREATED)


class Spent(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="capacity_spent",
        summary="What holding ready came to",
        description="Slot-hours held and used by day, as the policy in force would have held by the forecasts of then, "
        "and the windows in which that was too little.",
        tags=["capacity"],
        parameters=[SpentQuery],
        responses=SpentList,
    )
    def get(self, request: Request) -> HttpResponse:
        query = SpentQuery(data=request.query_params.dict())
        refuse_unknown_parameters(request, set(query.fields))
        query.is_valid(raise_exception=True)
        return _json(spent(query.validated_data["days"], time.time()))


def _json(found: object) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(found), content_type="application/json")
