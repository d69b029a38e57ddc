"""Methods of forecasting compared on the installation's own history."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.idempotency import Idempotent
from controlplane.api.strict import Nothing, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.planning import comparing
from controlplane.planning.models import Comparison


class MethodScore(serializers.Serializer):
    """Figures are by level, as "0.99"; null: nothing to tell."""

    key = serializers.CharField(help_text="As `manage.py backtest --methods` takes it.")
    name = serializers.CharField()
    coverage = serializers.DictField(child=serializers.FloatField(allow_null=True))
    coverage_busy = serializers.DictField(child=serializers.FloatField(allow_null=True))
    pinball = serializers.DictField(child=serializers.FloatField(allow_null=True))
    mean_reserve = serializers.DictField(child=serializers.FloatField(allow_null=True))
    mean_reserve_at_equal_coverage = serializers.DictField(child=serializers.FloatField(allow_null=True))
    cold_per_activation = serializers.DictField(child=serializers.FloatField(allow_null=True))
    slot_hours_held = serializers.DictField(child=serializers.FloatField(allow_null=True))
    held_over_used = serializers.DictField(child=serializers.FloatField(allow_null=True))
    slot_hours_used = serializers.FloatField()
    ms_per_decision = serializers.FloatField()


class ComparisonShape(serializers.Serializer):
    id = serializers.IntegerField(source="pk")
    state = serializers.SerializerMethodField()
    asked_at = serializers.DateTimeField()
    asked_by = serializers.CharField(help_text="Who, or daily.")
    ended_at = serializers.DateTimeField(allow_null=True)
    done = serializers.IntegerField(help_text="Decisions, of `of`.")
    of = serializers.IntegerField()
    error = serializers.CharField(help_text="Why there is no result; empty: there is none yet, or it is below.")
    keep_alive_s = serializers.IntegerField()
    windows = serializers.SerializerMethodField()
    methods = serializers.SerializerMethodField()

    def get_state(self, row: Comparison) -> str:
        return comparing.state_of(row, time.time())

    def get_windows(self, row: Comparison) -> int:
        return row.result["windows"] if row.result else 0

    def get_methods(self, row: Comparison) -> MethodScore(many=True):  # type: ignore[valid-type]  # for the schema
        found: dict[str, Any] = row.result["methods"] if row.result else {}
        return [{"key": key, **score} for key, score in found.items()]


class ComparisonsShape(serializers.Serializer):
    method = serializers.CharField(help_text="The method that forecasts now, by its key.")
    newest = ComparisonShape(allow_null=True)
    last_result = ComparisonShape(allow_null=True, help_text="The newest that came to an end.")


class Comparisons(Idempotent):
    role_actions = {"GET": "view", "POST": "capacity.compare"}

    @extend_schema(
        operation_id="capacity_comparisons",
        summary="Methods compared on this history",
        description="Each day all methods are asked about the last days anew, in order and without a look ahead. The "
        "default forecasts unless another one would clearly have held less for the same coverage.",
        tags=["capacity"],
        responses=ComparisonsShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(_shown())

    @extend_schema(
        operation_id="capacity_compare",
        summary="Compare methods now",
        description="Begins within a minute and takes some. Refused while one is asked for or in work.",
        tags=["capacity"],
        request=Nothing,
        responses={202: ComparisonsShape},
    )
    def post(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        Nothing(data=request.data).is_valid(raise_exception=True)
        comparing.ask(actor=actor_of(request, "rest"), now=time.time())
        return Response(_shown(), HTTPStatus.ACCEPTED)


def _shown() -> dict[str, Any]:
    rows = Comparison.objects
    found = {"method": comparing.chosen(), "newest": rows.first(), "last_result": rows.exclude(result=None).first()}
    return dict(ComparisonsShape(found).data)
