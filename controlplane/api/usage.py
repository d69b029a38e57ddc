"""Whose the GPUs' time was and what it cost: sums with a series, and the rows behind them as a file."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.api.strict import refuse_unknown_parameters
from controlplane.costs import report
from controlplane.costs.report import Asked

MOST = timedelta(days=800)


class UsageQuery(serializers.Serializer):
    by = serializers.ChoiceField(
        list(report.BY), required=False, default="team", help_text="What sums are made by. Keys of a name are one."
    )
    since = serializers.DateTimeField(
        required=False, default=None, allow_null=True, help_text="Taken to the hour; if not given, a week before."
    )
    until = serializers.DateTimeField(required=False, default=None, allow_null=True, help_text="If not given, now.")

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        until = given["until"] or timezone.now()
        since = given["since"] or until - timedelta(days=7)
        if not timedelta(0) < until - since <= MOST:
            raise serializers.ValidationError({"since": [f"It lies before `until`, {MOST.days} days at most."]})
        return {"by": given["by"], "since": since, "until": until}


class SharesShape(serializers.Serializer):
    active = serializers.FloatField(help_text="A request was there.")
    reserved = serializers.FloatField(help_text="An engine was up without one: the deployment's team pays.")
    idle = serializers.FloatField(help_text="No engine was up.")


class CostsShape(serializers.Serializer):
    active = serializers.FloatField(allow_null=True)
    reserved = serializers.FloatField(allow_null=True)
    idle = serializers.FloatField(allow_null=True)


class PerMillionShape(serializers.Serializer):
    input = serializers.FloatField(allow_null=True, help_text="Active time until the first token, of prompt tokens.")
    output = serializers.FloatField(allow_null=True, help_text="Active time after it, of tokens said.")
    active = serializers.FloatField(allow_null=True, help_text="Active time, of all tokens.")
    all = serializers.FloatField(allow_null=True, help_text="All time, of all tokens.")


class FiguresShape(serializers.Serializer):
    gpu_s = SharesShape(help_text="GPU-seconds.")
    cost = serializers.FloatField(allow_null=True, help_text="As far as prices are known; null: none is.")
    costs = CostsShape()
    unpriced_gpu_s = serializers.FloatField(help_text="GPU-seconds on nodes without a price, not in the cost.")
    requests = serializers.IntegerField(help_text="That reached an engine.")
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    per_million = PerMillionShape(help_text="Money per million tokens.")


class GroupShape(FiguresShape):
    name = serializers.CharField(allow_null=True, help_text="null: nobody's, of no deployment, or without a key.")


class UsageSeriesShape(serializers.Serializer):
    name = serializers.CharField(allow_null=True)
    others = serializers.BooleanField(help_text="All groups that have no series of their own.")
    points = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(allow_null=True)),
        help_text="[unix seconds, GPU-seconds, money]; money is null where no node had a price.",
    )


class UsageShape(serializers.Serializer):
    currency = serializers.CharField()
    by = serializers.CharField()
    since = serializers.FloatField(help_text="Unix seconds, as the other times.")
    until = serializers.FloatField()
    step_s = serializers.IntegerField(help_text="Of the series.")
    counted_at = serializers.FloatField(allow_null=True, help_text="When it was last counted; null: never.")
    final_until = serializers.FloatField(allow_null=True, help_text="Hours before it do not change any more.")
    recorded_since = serializers.FloatField(allow_null=True, help_text="The first hour on record.")
    total = FiguresShape()
    groups = GroupShape(many=True)
    series = UsageSeriesShape(many=True)


def asked(request: Request) -> Asked:
    query = UsageQuery(data=request.query_params.dict())
    refuse_unknown_parameters(request, set(query.fields))
    query.is_valid(raise_exception=True)
    return Asked(**query.validated_data)


class Usage(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="usage",
        summary="Usage and cost",
        description="GPU-seconds of active, reserved and idle time, tokens and money over a range, by team, model, "
        "key, node or share. Counted every two minutes; an hour is final ten minutes after its end.",
        tags=["usage"],
        parameters=[UsageQuery],
        responses=UsageShape,
    )
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(msgspec.json.encode(report.report(asked(request))), content_type="application/json")


class UsageExport(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="usage_export",
        summary="Export usage",
        description="The hours behind it as CSV: a row an hour, node, share, deployment, team and key. A cell that a "
        "spreadsheet would take for a formula has a quote in front.",
        tags=["usage"],
        parameters=[UsageQuery],
        responses={(200, "text/csv"): OpenApiResponse(OpenApiTypes.STR, description="The file.")},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        return report.download(request, asked(request))
