"""Capacity, looking back: who was active when, and what holding ready came to."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.api.strict import refuse_unknown_parameters
from controlplane.planning.raster import MOST_MODELS, raster
from controlplane.planning.spent import spent

MOST_DAYS = 62


class ActivityQuery(serializers.Serializer):
    day = serializers.DateField(required=False, help_text="UTC; today, if it is not given.")
    models = serializers.IntegerField(
        required=False, default=60, min_value=1, max_value=MOST_MODELS, help_text="At most so many, most active first."
    )


class ActivityRow(serializers.Serializer):
    name = serializers.CharField()
    requests = serializers.IntegerField(help_text="That came on this day.")
    activations = serializers.IntegerField(help_text="How often it became active.")
    busy_s = serializers.IntegerField(help_text="With a request in flight, pauses under a minute included.")
    active_s = serializers.IntegerField(help_text="The same with keep-alive.")
    busy = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="[from, until], seconds from midnight; below 0: before it.",
    )


class ActivityShape(serializers.Serializer):
    day = serializers.DateField()
    first_day = serializers.DateField(help_text="Of the record.")
    last_day = serializers.DateField()
    until_s = serializers.FloatField(help_text="Of the day, what is over: seconds from its midnight, UTC.")
    keep_alive_s = serializers.IntegerField()
    models = serializers.IntegerField(help_text="That were active on this day.")
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
    held_cost = serializers.FloatField(allow_null=True, help_text="By the policy's price; null without one.")
    idle_cost = serializers.FloatField(allow_null=True, help_text="Of what was held and not used.")
    covered = serializers.ListField(
        child=serializers.FloatField(allow_null=True), help_text="By level: the share that came to no more than told."
    )


class SpentDay(SpentShape):
    day = serializers.DateField()


class SpentList(serializers.Serializer):
    window_s = serializers.IntegerField()
    price = serializers.FloatField(allow_null=True, help_text="Of a slot-hour, by the policy.")
    levels = serializers.ListField(child=serializers.CharField())
    days = SpentDay(many=True)
    total = SpentShape()


class Activity(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="capacity_activity",
        summary="Who was active when, on one day",
        description="Each model's busy times, the most active first: a raster of models and minutes.",
        tags=["capacity"],
        parameters=[ActivityQuery],
        responses=ActivityShape,
    )
    def get(self, request: Request) -> HttpResponse:
        query = ActivityQuery(data=request.query_params.dict())
        refuse_unknown_parameters(request, set(query.fields))
        query.is_valid(raise_exception=True)
        now = time.time()
        day = query.validated_data.get("day") or datetime.fromtimestamp(now, UTC).date()
        return _json(raster(day, query.validated_data["models"], now))


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
