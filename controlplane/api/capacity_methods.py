"""Methods of forecasting compared on the installation's own history."""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.capacity_past import TraceFields
from controlplane.api.idempotency import Idempotent
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.domain.forecast.methods import NAMES
from controlplane.fleet.errors import NotFound
from controlplane.planning import comparing, sent_traces
from controlplane.planning.backtests import Asked
from controlplane.planning.models import Comparison

ASKED = {"quantiles": "levels"}  # by their names there


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
    slot_hours_used = serializers.FloatField(allow_null=True)
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


class BacktestShape(ComparisonShape):
    trace = serializers.CharField(source="trace_name", help_text="That was sent; empty: this installation's history.")
    question = serializers.JSONField(help_text="As it was asked on a trace, defaults filled in; of own history empty.")
    judged_hours = serializers.SerializerMethodField()
    models = serializers.SerializerMethodField(help_text="In the log.")
    mean_peak = serializers.SerializerMethodField(help_text="Of judged windows; null: none was judged, or none yet.")
    notes = serializers.SerializerMethodField(help_text="How the trace was read.")

    def get_judged_hours(self, row: Comparison) -> float:
        return row.result["judged_hours"] if row.result else 0.0

    def get_models(self, row: Comparison) -> int:
        return row.result["models"] if row.result else 0

    def get_mean_peak(self, row: Comparison) -> float | None:
        found = row.result["mean_peak"] if row.result else None
        return None if found is None or math.isnan(found) else found  # older rows have NaN for none

    def get_notes(self, row: Comparison) -> list[str]:
        return row.result["notes"] if row.result else []


class BacktestBody(TraceFields):
    """Without a trace nothing else may be given: own history is compared as each day."""

    tau_s = serializers.FloatField(required=False, min_value=5, max_value=86_400, help_text="Keep-alive. Default 300.")
    horizon_s = serializers.FloatField(
        required=False, min_value=60, max_value=86_400, help_text="That a reserve is for. Default 600."
    )
    quantiles = serializers.ListField(
        required=False, child=serializers.FloatField(), min_length=1, max_length=6, help_text="Default [0.95, 0.99]."
    )
    methods = serializers.ListField(
        required=False, child=serializers.ChoiceField(NAMES), min_length=1, help_text="Default all."
    )
    warmup_days = serializers.FloatField(
        required=False, min_value=0, max_value=31, help_text="Before the judged ones. Default from the beginning."
    )
    judge_from_day = serializers.FloatField(
        required=False, min_value=0, max_value=31, help_text="From the first midnight, UTC. Default half of the trace."
    )

    def validate(self, found: dict[str, Any]) -> dict[str, Any]:
        if not self.initial_data:
            return found
        return super().validate(found)

    def asked(self) -> Asked:
        given = self.validated_data
        renamed = {ASKED.get(key, key): value for key, value in given.items() if key in BacktestBody.QUESTION}
        return Asked(**{key: tuple(value) if isinstance(value, list) else value for key, value in renamed.items()})

    QUESTION = frozenset({"tau_s", "horizon_s", "quantiles", "methods", "warmup_days", "judge_from_day"})


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
        description="Begins within a minute and takes some. Refused while one is asked for or in work. With a trace it "
        "is a backtest of that, as `manage.py backtest`: nothing of it is imported, and the choice of a method stays. "
        "`newest` and `last_result` are of own history; `Location` is where this one is told of.",
        tags=["capacity"],
        request=BacktestBody,
        responses={202: ComparisonsShape},
        examples=[
            OpenApiExample("own history", value={}, request_only=True),
            OpenApiExample(
                "a trace",
                value={
                    "trace": "t_s,model,duration_s\n10,chat,2\n90000,chat,1\n", "tau_s": 300, "horizon_s": 600,
                    "quantiles": [0.95, 0.99], "methods": ["best", "last"], "judge_from_day": 0.5,
                },
                request_only=True,
            ),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        body = BacktestBody(data=request.data)
        body.is_valid(raise_exception=True)
        on = None
        if request.data:
            on = sent_traces.columns(body.validated_data["name"], body.validated_data["data"], body.asked())
        row = comparing.ask(actor=actor_of(request, "rest"), now=time.time(), on=on)
        where = reverse("api:capacity-comparison", args=[row.pk])
        return Response(_shown(), HTTPStatus.ACCEPTED, headers={"Location": where})


class OneComparison(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="capacity_comparison",
        summary="One comparison or backtest",
        description="How far it is, then by method and baseline: coverage, pinball loss, reserve, cold activations and "
        "slot-hours. The newest 30 of own history and 30 of traces are kept.",
        tags=["capacity"],
        responses=BacktestShape,
    )
    def get(self, request: Request, pk: int) -> Response:
        refuse_unknown_parameters(request, set())
        row = Comparison.objects.defer("trace").filter(pk=pk).first()
        if row is None:
            raise NotFound("comparison", pk)
        return Response(dict(BacktestShape(row).data))


def _shown() -> dict[str, Any]:
    rows = comparing.own()
    found = {"method": comparing.chosen(), "newest": rows.first(), "last_result": rows.exclude(result=None).first()}
    return dict(ComparisonsShape(found).data)
