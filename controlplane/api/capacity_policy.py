"""The capacity policy: what is held ready, against what it is weighed, and changing it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.dry_runs import is_dry_run
from controlplane.api.etags import IF_MATCH, ExpectedVersion, seen, tag
from controlplane.api.idempotency import Idempotent
from controlplane.api.resource import DRY_RUN
from controlplane.api.strict import Reason, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.domain.holding import MOST_FLOORS
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy
from controlplane.planning.outlook import held
from controlplane.planning.weighing import weigh

TEXT = {
    "keep_alive_s": "Seconds after its last request that a model counts as active.",
    "aim": "risk: at most `most_cold` of activations wait. prices: what costs least by the two prices.",
    "most_cold": "The share of activations that may find no slot ready.",
    "gpu_hour_price": "Of an hour of one GPU, in any currency; a slot costs as many as it has GPUs.",
    "cold_price": "Of an activation that waits, in the same.",
    "floors": "At least so many slots, by the clock: `Mon-Fri 9:00-12:00 12`, or `2026-12-24 9:00-12:00 12`. They "
    "replace those there are.",
    "time_zone": "In which floors are meant, as Europe/Berlin.",
}


class WeighedShape(serializers.Serializer):
    slots = serializers.IntegerField(allow_null=True, help_text="Null: no record tells, or more than any curve has.")
    gpus = serializers.IntegerField(allow_null=True, help_text="That these slots have.")
    cold = serializers.FloatField(allow_null=True, help_text="The share of activations that wait.")
    idle_slots = serializers.FloatField(allow_null=True, help_text="On the mean.")
    activations_per_hour = serializers.FloatField(allow_null=True)
    waits_per_hour = serializers.FloatField(allow_null=True)
    cost = serializers.FloatField(allow_null=True, help_text="Of 30 days; null without both prices.")
    days = serializers.FloatField(help_text="Of record that it is from.")
    about = serializers.BooleanField(help_text="Read off the curves of other keep-alives.")


class HeldSizeShape(serializers.Serializer):
    gpus = serializers.IntegerField(help_text="Of one slot.")
    slots = serializers.IntegerField()
    there = serializers.IntegerField(help_text="That the pool has.")


class HeldShape(serializers.Serializer):
    slots = serializers.IntegerField(help_text="Those in use are a part of them.")
    reason = serializers.CharField()
    sizes = HeldSizeShape(many=True, help_text="By the GPUs of a slot: a model's is the smallest that holds it.")
    gpus = serializers.IntegerField(help_text="Of all of them.")
    nodes = serializers.IntegerField(allow_null=True, help_text="The fewest that hold them; null: there are no GPUs.")
    node_gpus = serializers.IntegerField(allow_null=True, help_text="Of each of these nodes.")
    assumed = serializers.IntegerField(
        help_text="Models that no slot is known to hold, as of an imported history: taken to need one GPU."
    )


class CapacityPolicyShape(serializers.Serializer):
    keep_alive_s = serializers.IntegerField(help_text=TEXT["keep_alive_s"])
    aim = serializers.ChoiceField(CapacityPolicy.Aim.choices, help_text=TEXT["aim"])
    most_cold = serializers.FloatField(help_text=TEXT["most_cold"])
    gpu_hour_price = serializers.FloatField(allow_null=True, help_text=TEXT["gpu_hour_price"])
    cold_price = serializers.FloatField(allow_null=True, help_text=TEXT["cold_price"])
    floors = serializers.ListField(child=serializers.CharField(), help_text=TEXT["floors"])
    time_zone = serializers.CharField(help_text=TEXT["time_zone"])
    version = serializers.IntegerField(help_text="0: nobody changed it, and the environment decides.")
    held = HeldShape(allow_null=True, help_text="What it asks for now; null: not known yet, so as many as before.")
    weighed = WeighedShape(help_text="What it comes to by the habits of the last week, floors aside.")


class CapacityPolicyBody(Reason):
    """Only what is sent changes."""

    keep_alive_s = serializers.IntegerField(
        required=False, min_value=policy.KEEP_ALIVE_S[0], max_value=policy.KEEP_ALIVE_S[1],
        help_text=TEXT["keep_alive_s"],
    )  # fmt: skip
    aim = serializers.ChoiceField(CapacityPolicy.Aim.choices, required=False, help_text=TEXT["aim"])
    most_cold = serializers.FloatField(
        required=False, min_value=policy.MOST_COLD[0], max_value=policy.MOST_COLD[1], help_text=TEXT["most_cold"]
    )
    gpu_hour_price = serializers.FloatField(required=False, allow_null=True, help_text=TEXT["gpu_hour_price"])
    cold_price = serializers.FloatField(required=False, allow_null=True, help_text=TEXT["cold_price"])
    floors = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=MOST_FLOORS, help_text=TEXT["floors"]
    )
    time_zone = serializers.CharField(required=False, max_length=64, help_text=TEXT["time_zone"])
    expected_version = ExpectedVersion()


class Policy(Idempotent):
    role_actions = {"GET": "view", "PATCH": "capacity.change"}
    extra_errors = ("412",)

    @extend_schema(
        operation_id="capacity_policy",
        summary="The capacity policy",
        description="What is to be held ready, and what it comes to. Its version is the ETag.",
        tags=["capacity"],
        responses=CapacityPolicyShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        return _answer(policy.current())

    @extend_schema(
        operation_id="capacity_policy_change",
        summary="Change the capacity policy",
        description="Only what is sent changes; it holds from the next minute. With `dry_run=true` nothing changes, "
        "and the answer is the policy as it would be, with what it would come to.",
        tags=["capacity"],
        parameters=[DRY_RUN, IF_MATCH],
        request=CapacityPolicyBody,
        responses=CapacityPolicyShape,
        examples=[
            OpenApiExample(
                "a busy Monday morning",
                value={"floors": ["Mon 9:00-12:00 12"], "time_zone": "Europe/Berlin", "reason": "the weekly report"},
                request_only=True,
            )
        ],
    )
    def patch(self, request: Request) -> Response:
        refuse_unknown_parameters(request, {"dry_run"})
        if request.query_params.get("dry_run", "false").lower() not in {"true", "false", "1", "0"}:
            raise ValidationError({"dry_run": ["Say true or false."]})
        body = CapacityPolicyBody(data=request.data)
        body.is_valid(raise_exception=True)
        values = dict(body.validated_data)
        if is_dry_run(request):
            given = {name: value for name, value in values.items() if name in policy.FIELDS}
            return _answer(policy.changed(given))
        expected = seen(request, values.pop("expected_version"), policy.current().version)
        return _answer(policy.change(**values, expected_version=expected, actor=actor_of(request, "rest")))


def _answer(row: CapacityPolicy) -> Response:
    shown: dict[str, Any] = {**policy.shown(row), "version": row.version}
    shown |= {"held": held(row, time.time()), "weighed": asdict(weigh(row))}
    return Response(CapacityPolicyShape(shown).data, headers={"ETag": tag(row.version), "Cache-Control": "no-store"})
