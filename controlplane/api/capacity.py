"""Capacity: how many models are active, how many will be, and what to hold ready for them."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.api.capacity_policy import HeldShape
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.planning.forecasting import HORIZONS_S
from controlplane.planning.outlook import Asked, outlook

MOST_HOURS = 24 * 31


class CapacityQuery(serializers.Serializer):
    horizon_s = serializers.ChoiceField(
        HORIZONS_S, required=False, default=HORIZONS_S[0], help_text="Seconds that a forecast reaches."
    )
    hours = serializers.FloatField(
        required=False, default=24.0, min_value=1.0, max_value=MOST_HOURS, help_text="Of the past, up to now."
    )


class SaidShape(serializers.Serializer):
    at = serializers.FloatField(help_text="Unix seconds: the window begins.")
    active = serializers.IntegerField(allow_null=True, help_text="Active models then; null: nothing was on record.")
    values = serializers.ListField(
        child=serializers.IntegerField(), help_text="By level: the greatest number until the window ends."
    )
    peak = serializers.IntegerField(allow_null=True, help_text="What it came to; null: not over, or not on record.")
    replayed = serializers.BooleanField(help_text="Said afterwards, from what was on record by then.")
    models = serializers.IntegerField(help_text="That were known of.")
    recorded_s = serializers.FloatField(help_text="Since the beginning of the record.")


class OfSizeShape(serializers.Serializer):
    gpus = serializers.IntegerField(help_text="Of a slot that such a model takes.")
    models = serializers.IntegerField()
    slots = serializers.IntegerField(required=False, help_text="That they take in all: a pair may take two of a size.")
    assumed = serializers.IntegerField(help_text="Of them, those whose size is not known.")
    active = serializers.IntegerField(allow_null=True, help_text="Slots of active models.")
    values = serializers.ListField(
        child=serializers.IntegerField(), help_text="By level, in slots, of these models alone."
    )
    peak = serializers.IntegerField(required=False, help_text="What it came to, in slots, once that is over.")


class NewestShape(SaidShape):
    by_size = OfSizeShape(many=True, help_text="Of each size by itself; empty: every slot is of one GPU.")
    horizon_s = serializers.IntegerField()
    method = serializers.CharField()
    shares = serializers.DictField(child=serializers.FloatField(), help_text="How much each method counts, at 99%.")


class CalibrationShape(serializers.Serializer):
    windows = serializers.IntegerField(help_text="Forecasts of the last days that are over.")
    apart = serializers.FloatField(help_text="As many that do not overlap would tell as much: 168 of a day are 7.")
    replayed = serializers.IntegerField(help_text="Of them, those that were said afterwards.")
    days = serializers.FloatField()
    covered = serializers.ListField(
        child=serializers.FloatField(allow_null=True), help_text="By level: the share that came to no more than told."
    )


class CurveField(serializers.ListField):
    child = serializers.ListField(child=serializers.FloatField())


CURVE = "[slots, share of activations that are cold, mean idle slots]."


class BeginningShape(serializers.Serializer):
    recorded_since = serializers.FloatField(allow_null=True, help_text="Null: nothing is on record.")
    models = serializers.IntegerField(help_text="On record.")
    gateways = serializers.IntegerField(help_text="That are heard.")
    first_at = serializers.FloatField(allow_null=True, help_text="Of the first forecast. Past: it is due.")
    what_if_at = serializers.FloatField(allow_null=True, help_text="From when on `standing` tells anything.")
    worker_silent = serializers.BooleanField(help_text="The control worker, which makes forecasts, is not heard.")


class StandingOfSizeShape(serializers.Serializer):
    gpus = serializers.IntegerField(help_text="Of a slot that such a model takes.")
    models = serializers.IntegerField()
    assumed = serializers.IntegerField(help_text="Of them, those whose size is not known.")
    expected = serializers.FloatField(help_text="E[slots of active models].")
    activations_per_hour = serializers.FloatField()
    curve = CurveField(help_text=CURVE)


class StandingShape(serializers.Serializer):
    keep_alive_s = serializers.IntegerField()
    at = serializers.FloatField()
    days = serializers.FloatField(help_text="Of record that it is from.")
    models = serializers.IntegerField()
    expected = serializers.FloatField(help_text="E[active models].")
    aegaeon = serializers.FloatField(help_text="sum(1 - e^(-lambda T)), for comparison.")
    activations_per_hour = serializers.FloatField()
    curve = CurveField(help_text=CURVE)
    by_size = StandingOfSizeShape(
        many=True,
        help_text="Each size by itself, without models that have partitions of their own; empty: all of one GPU.",
    )


class CapacityShape(serializers.Serializer):
    now = serializers.FloatField()
    horizon_s = serializers.IntegerField()
    keep_alive_s = serializers.IntegerField()
    most_cold = serializers.FloatField(help_text="The share of activations that may find no slot ready.")
    aim = serializers.CharField(help_text="risk: `most_cold` decides; prices: the two prices do.")
    gpu_hour_price = serializers.FloatField(allow_null=True, help_text="Of an hour of one GPU.")
    cold_price = serializers.FloatField(allow_null=True, help_text="Of an activation that waits.")
    held = HeldShape(allow_null=True, help_text="To be held now; null: not known yet, so as many as before.")
    levels = serializers.ListField(child=serializers.FloatField())
    recorded_since = serializers.FloatField(allow_null=True, help_text="Null: nothing is on record.")
    recorded_s = serializers.FloatField(help_text="Without outages.")
    outage_since = serializers.FloatField(allow_null=True, help_text="While nothing is being recorded.")
    beginning = BeginningShape(allow_null=True, help_text="What a first forecast waits for; null: there is one.")
    slots = serializers.IntegerField(help_text="Partitions of the fleet: each holds one model at a time.")
    newest = NewestShape(many=True, help_text="One a horizon.")
    forecasts = SaidShape(many=True)
    calibration = CalibrationShape()
    standing = StandingShape(many=True, help_text="What any number of slots would come to, by keep-alive.")


class Capacity(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="capacity",
        summary="Active models, forecast and what to hold",
        description="The number of active models over the past, what was forecast of it and what it came to, the "
        "newest forecast of each horizon, and how well the last ones held. A slot holds one model, and has "
        "the GPUs that it needs.",
        tags=["capacity"],
        parameters=[CapacityQuery],
        responses=CapacityShape,
    )
    def get(self, request: Request) -> HttpResponse:
        query = CapacityQuery(data=request.query_params.dict())
        refuse_unknown_parameters(request, set(query.fields))
        query.is_valid(raise_exception=True)
        now, asked = time.time(), query.validated_data
        found: dict[str, Any] = outlook(Asked(int(asked["horizon_s"]), now - asked["hours"] * 3600.0, now), now)
        return HttpResponse(msgspec.json.encode(found), content_type="application/json")
