"""Samples over time, for charts."""

from __future__ import annotations

import math
import time
from typing import Any

from django.conf import settings
from django.shortcuts import get_object_or_404
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.live_shapes import SamplesShape
from controlplane.api.strict import Id, refuse_unknown_parameters
from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel
from controlplane.telemetry import metrics, series

DEFAULT_SPAN_S = 15 * 60
LAST_MOMENT = 2**32
DAY_S = 86400
MAX_QUANTILES = 5
SUBJECTS = ("fleet", "node", "gpu", "partition", "deployment", "model", "label")


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


@extend_schema_field(OpenApiTypes.STR)
class Quantiles(serializers.Field):
    """Shares between 0 and 1, with commas between them."""

    default_error_messages = {"invalid": f"Give up to {MAX_QUANTILES} numbers from 0 to 1, as 0.5,0.95."}

    def to_internal_value(self, data: Any) -> tuple[float, ...]:
        parts = str(data).split(",")
        try:
            shares = tuple(float(part) for part in parts)
        except ValueError:
            self.fail("invalid")
        if len(shares) > MAX_QUANTILES or not all(0 <= share <= 1 for share in shares):
            self.fail("invalid")
        return shares

    def to_representation(self, value: tuple[float, ...]) -> str:
        return ",".join(map(str, value))


class SamplesQuery(serializers.Serializer):
    fleet = serializers.ChoiceField(["true"], required=False, help_text="All of it. Give one of the subjects.")
    node = Id(required=False, help_text="All its GPUs, or all its partitions.")
    gpu = Id(required=False)
    partition = Id(required=False)
    deployment = Id(required=False, help_text="The engines that served it at the time; the GPUs that serve it now.")
    model = Id(required=False, help_text="All deployments of a registered model.")
    label = serializers.CharField(
        required=False, max_length=300, help_text="The nodes with this label, as rack=a1. What is before = is its name."
    )
    metric = serializers.ChoiceField(list(series.METRICS))
    shape = serializers.ChoiceField(
        list(series.SHAPES),
        required=False,
        help_text="series: a line per GPU or engine. band: p10, p50 and p90 over them, or over requests for latencies. "
        "total: their sum, or their mean where a sum says nothing. Default: series; of the fleet: total.",
    )
    quantile = Quantiles(
        required=False,
        help_text="Of latencies: a line per share, as 0.5,0.95, over all requests at its engines.",
    )
    to = Moment(required=False, help_text="Unix seconds or ISO 8601. Default: now.")
    step = serializers.IntegerField(required=False, min_value=1, max_value=86400, help_text="Seconds between points.")

    def get_fields(self) -> dict[str, serializers.Field]:
        begin = Moment(required=False, help_text="Default: 15 minutes before `to`.")
        return {**super().get_fields(), "from": begin}

    def validate_label(self, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValidationError("Give a label's name and value, as rack=a1.")
        return name, value

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if len(set(SUBJECTS) & given.keys()) != 1:
            raise ValidationError(f"Give exactly one of {', '.join(SUBJECTS)}.")
        if "quantile" in given and given["metric"] not in metrics.LATENCIES:
            raise ValidationError({"quantile": [f"Only latencies have one: {', '.join(metrics.LATENCIES)}."]})
        if "quantile" in given and given.get("shape") == series.BAND:
            raise ValidationError({"quantile": ["A band has its own; leave out one of quantile and shape."]})
        given.setdefault("shape", series.TOTAL if "fleet" in given else series.LINES)
        given.setdefault("to", time.time())
        given.setdefault("from", given["to"] - DEFAULT_SPAN_S)
        if given["from"] >= given["to"]:
            raise ValidationError({"from": ["It must lie before `to`."]})
        if given["to"] - given["from"] > settings.SAMPLE_HOUR_KEEP_DAYS * DAY_S:
            raise ValidationError(
                {"from": [f"History is kept for {settings.SAMPLE_HOUR_KEEP_DAYS} days; ask for less."]}
            )
        return given


class Samples(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="samples",
        summary="Samples over time",
        description="One metric per step, and the changes in that time. Gaps are points without a value. Longer ranges "
        "are read from means of a minute or an hour, and have steps of no less.",
        tags=["live"],
        parameters=[SamplesQuery],
        responses=SamplesShape,
    )
    def get(self, request: Request) -> Response:
        asked = _query(request)
        subject = _subject(asked)
        lines = series.line_count(subject, asked["metric"])
        over = series.span(asked["from"], asked["to"], asked.get("step"), time.time(), lines=lines)
        try:
            found = series.read(
                subject, asked["metric"], over, shape=asked["shape"], quantiles=asked.get("quantile", ())
            )
        except series.TooManyLines as error:
            raise ValidationError({"shape": [f"{error} Ask for shape=band or shape=total."]}) from None
        return Response(found)


def _query(request: Request) -> dict[str, Any]:
    query = SamplesQuery(data=request.query_params.dict())
    refuse_unknown_parameters(request, set(query.fields))
    query.is_valid(raise_exception=True)
    return query.validated_data


def _subject(asked: dict[str, Any]) -> series.Subject:
    if "fleet" in asked:
        return series.of_fleet()
    if "label" in asked:
        return series.of_label(*asked["label"])
    if "node" in asked:
        return series.of_node(get_object_or_404(Node.objects.defer("spec"), pk=asked["node"]))
    if "gpu" in asked:
        return series.of_gpu(get_object_or_404(Gpu.objects.select_related("partition"), pk=asked["gpu"]))
    if "deployment" in asked:
        return series.of_deployment(get_object_or_404(Deployment, pk=asked["deployment"]))
    if "model" in asked:
        return series.of_model(get_object_or_404(RegisteredModel, pk=asked["model"]))
    return series.of_partition(get_object_or_404(Partition, pk=asked["partition"]))


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
