"""The scaling policy: how plans are made, and when one is applied without a person."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.etags import IF_MATCH, ExpectedVersion, seen, tag
from controlplane.api.idempotency import Idempotent
from controlplane.api.strict import Reason, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.domain.holding import MOST_FLOORS
from controlplane.scaling import policy
from controlplane.scaling.models import ScalingPolicy

TEXT = {
    "auto_apply": "Plans that nothing holds back are applied by themselves.",
    "auto_switch": "So are those that switch between aggregated and disaggregated engines.",
    "level": "How sure the floor by the forecast is of the rate.",
    "lengths_level": "How sure it is of the mean lengths of the next hour's prompts and answers; from the next replay "
    "on: at the next look where the kinds of engines are compared, else within ten minutes.",
    "quiet_s": "For so long one engine fewer must do before it goes; of k too many, the first goes after a k-th of it.",
    "moves_per_hour": "Partitions that may be moved by themselves in an hour.",
    "quiet_hours": "In which nothing is applied by itself: `Mon-Fri 9:00-12:00`. They replace those there are.",
    "time_zone": "In which quiet hours are meant, as Europe/Berlin.",
    "most_gpus": "GPUs that dedicated engines may come to by themselves; null: any number.",
    "price_per_hour": "What they may come to cost in an hour by themselves; null: anything.",
}


class ScalingPolicyShape(serializers.Serializer):
    auto_apply = serializers.BooleanField(help_text=TEXT["auto_apply"])
    auto_switch = serializers.BooleanField(help_text=TEXT["auto_switch"])
    level = serializers.FloatField(help_text=TEXT["level"])
    lengths_level = serializers.FloatField(help_text=TEXT["lengths_level"])
    quiet_s = serializers.IntegerField(help_text=TEXT["quiet_s"])
    moves_per_hour = serializers.IntegerField(help_text=TEXT["moves_per_hour"])
    quiet_hours = serializers.ListField(child=serializers.CharField(), help_text=TEXT["quiet_hours"])
    time_zone = serializers.CharField(help_text=TEXT["time_zone"])
    most_gpus = serializers.IntegerField(allow_null=True, help_text=TEXT["most_gpus"])
    price_per_hour = serializers.FloatField(allow_null=True, help_text=TEXT["price_per_hour"])
    version = serializers.IntegerField(help_text="0: nobody changed it.")


def _share(name: str) -> serializers.FloatField:
    least, most = policy.BOUNDS[name]
    return serializers.FloatField(required=False, min_value=least, max_value=most, help_text=TEXT[name])


def _whole(name: str) -> serializers.IntegerField:
    least, most = policy.BOUNDS[name]
    return serializers.IntegerField(
        required=False, min_value=int(least), max_value=int(most), help_text=TEXT[name]
    )  # fmt: skip


class ScalingPolicyBody(Reason):
    """Only what is sent changes."""

    auto_apply = serializers.BooleanField(required=False, help_text=TEXT["auto_apply"])
    auto_switch = serializers.BooleanField(required=False, help_text=TEXT["auto_switch"])
    level = _share("level")
    lengths_level = _share("lengths_level")
    quiet_s = _whole("quiet_s")
    moves_per_hour = _whole("moves_per_hour")
    quiet_hours = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=MOST_FLOORS,
        help_text=TEXT["quiet_hours"],
    )  # fmt: skip
    time_zone = serializers.CharField(required=False, max_length=64, help_text=TEXT["time_zone"])
    most_gpus = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=policy.LARGEST, help_text=TEXT["most_gpus"]
    )
    price_per_hour = serializers.FloatField(
        required=False, allow_null=True, min_value=0, max_value=policy.LARGEST, help_text=TEXT["price_per_hour"]
    )
    expected_version = ExpectedVersion()


class Policy(Idempotent):
    role_actions = {"GET": "view", "PATCH": "capacity.change"}
    extra_errors = ("412",)

    @extend_schema(
        operation_id="scaling_policy",
        summary="The scaling policy",
        description="How plans are made, and when one is applied without a person. Its version is the ETag.",
        tags=["scaling"],
        responses=ScalingPolicyShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        return _answer(policy.current())

    @extend_schema(
        operation_id="scaling_policy_change",
        summary="Change the scaling policy",
        description="Only what is sent changes; it holds from the next look, within a minute.",
        tags=["scaling"],
        parameters=[IF_MATCH],
        request=ScalingPolicyBody,
        responses=ScalingPolicyShape,
        examples=[
            OpenApiExample(
                "by itself, but not in office hours",
                value={
                    "auto_apply": True, "moves_per_hour": 4, "quiet_hours": ["Mon-Fri 8:00-18:00"],
                    "time_zone": "Europe/Berlin", "reason": "nights run alone",
                },
                request_only=True,
            )
        ],
    )  # fmt: skip
    def patch(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        body = ScalingPolicyBody(data=request.data)
        body.is_valid(raise_exception=True)
        values = dict(body.validated_data)
        expected = seen(request, values.pop("expected_version"), policy.current().version)
        return _answer(policy.change(**values, expected_version=expected, actor=actor_of(request, "rest")))


def _answer(row: ScalingPolicy) -> Response:
    shown = {**policy.shown(row), "version": row.version}
    return Response(ScalingPolicyShape(shown).data, headers={"ETag": tag(row.version), "Cache-Control": "no-store"})
