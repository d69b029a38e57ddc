"""The pool: its slots, who waits, and what became of those who were asked for."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.filters import Filters, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import Resource
from controlplane.api.shapes import Link
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.fleet import pool_habits, pool_view, sleeping
from controlplane.fleet.models import Activation, PoolAim, Sleeper
from controlplane.fleet.pool_view import Place, SlotNow
from controlplane.teams import floors

STATES = [state.value for state in Activation.State]


class ActivationShape(serializers.ModelSerializer):
    """A model that was asked for while nothing served it, or not enough."""

    deployment = Link()
    partition = Link(allow_null=True)
    partner = Link(allow_null=True, help_text="Of a pair the decode slot; `partition` is then the prefill slot.")
    wait_s = serializers.SerializerMethodField(help_text="From being asked for to its end, or until now.")

    class Meta:
        model = Activation
        fields = [
            "id", "deployment", "shape", "partition", "partner", "slot", "evicted", "cause", "state", "reason",
            "message", "waiters", "asked_at", "placed_at", "ended_at", "broke_at", "came_at", "woken",
            "wait_s",
        ]  # fmt: skip
        extra_kwargs = {
            "shape": {"help_text": "As it was placed: in one slot, or as a pair in two."},
            "slot": {"help_text": "node/partition, of a pair both; kept when the partition is gone."},
            "evicted": {"help_text": "The deployments that left for it."},
            "reason": {"help_text": "Why these slots, or why none."},
            "message": {"help_text": "Why it failed, or why its engine broke."},
            "waiters": {"help_text": "Requests held for it at once, at most."},
            "ended_at": {"help_text": "Ready, failed or given up."},
            "woken": {"help_text": "Its engine slept in the slot: it was to be woken, not started."},
            "broke_at": {"help_text": "It was ready, and its engine could not be kept up afterwards."},
            "came_at": {
                "help_text": "Woken ahead of requests: when one was first known to have come, within a keep-alive."
            },
        }

    def get_wait_s(self, row: Activation) -> float:
        return round(((row.ended_at or timezone.now()) - row.asked_at).total_seconds(), 3)


class SleeperShape(serializers.Serializer):
    deployment = Link()
    since = serializers.FloatField(help_text="Unix seconds: asleep since.")
    level = serializers.IntegerField(help_text="1: its weights lie in host memory; 2: they are read again on waking.")
    host_bytes = serializers.IntegerField(help_text="What it counts for of the host memory for those that sleep.")
    gpu_bytes = serializers.IntegerField(help_text="What it still holds of the slot's GPUs, all of them together.")


class SlotShape(serializers.Serializer):
    partition = Link()
    node = Link()
    gpus = serializers.ListField(child=serializers.IntegerField(), help_text="Indices.")
    memory_bytes = serializers.IntegerField(help_text="Of its GPUs together.")
    place = serializers.ChoiceField([place.value for place in Place], help_text="What it is for the pool.")
    status = serializers.CharField(help_text="Of the partition.")
    deployment = Link(allow_null=True)
    role = serializers.CharField(allow_null=True, help_text="Of the deployment's engine there.")
    pair_with = serializers.ListField(
        child=serializers.CharField(),
        help_text="node/partition of the other half, where the model is woken as a pair: they are given back together.",
    )
    lent_why = serializers.CharField(help_text="Why the pool lends it to a dedicated deployment; empty: it does not.")
    since = serializers.FloatField(allow_null=True, help_text="Unix seconds: in its phase since.")
    in_flight = serializers.IntegerField(allow_null=True, help_text="Requests; null: not known.")
    idle_s = serializers.FloatField(allow_null=True)
    keep_alive_s = serializers.FloatField(allow_null=True)
    keep_alive_why = serializers.CharField(
        allow_null=True, help_text="Why so long: whose it is, or how it was learned."
    )
    sleepers = SleeperShape(many=True, help_text="Engines that sleep there; the last to leave first.")
    sleep_why_not = serializers.CharField(help_text="Why no engine is put to sleep there; empty: it may be.")


class FloorShape(serializers.Serializer):
    team = serializers.CharField()
    floor = serializers.IntegerField(help_text="GPUs that its deployments can always have.")
    used = serializers.IntegerField(help_text="GPUs of slots that they have now.")


class PoolShape(serializers.Serializer):
    now = serializers.FloatField()
    free_wanted = serializers.IntegerField(help_text="Slots kept free at least, whatever is forecast.")
    held_wanted = serializers.IntegerField(allow_null=True, help_text="Slots to hold, in use or free; null: not known.")
    held_by_gpus = serializers.DictField(
        child=serializers.IntegerField(), help_text="The same by the GPUs of a slot; empty: all of one, or not known."
    )
    held_reason = serializers.CharField(help_text="Why so many.")
    min_residence_s = serializers.FloatField(help_text="Nobody is made to leave sooner.")
    sleepers_wanted = serializers.IntegerField(help_text="Engines that may sleep in a slot on GPUs, at most; 0: none.")
    predicts = serializers.BooleanField(help_text="Whether it uses what was learned of models' habits.")
    habits_at = serializers.FloatField(allow_null=True, help_text="Unix seconds: when they were learned; null: never.")
    woken_ahead = serializers.IntegerField(help_text="Models that were woken before anybody asked, in the last day.")
    asked_for_in_time = serializers.IntegerField(help_text="Of these, those that were asked for within a keep-alive.")
    floors = FloorShape(many=True, help_text="Of teams that have one.")
    floors_lacking = serializers.IntegerField(help_text="GPUs that they are owed and that are not free now.")
    slots = SlotShape(many=True)
    waiting = ActivationShape(many=True, help_text="Longest first.")


class Pool(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="pool",
        summary="The pool now",
        description="Which slots there are, which model is in each, and which models wait.",
        tags=["pool"],
        responses=PoolShape,
    )
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        found, aim = pool_view.look(timezone.now()), PoolAim.objects.first()
        owed = floors.look(timezone.now())
        learned, tally = pool_habits.learned_at(), pool_view.tally(timezone.now())
        shown = {
            "now": time.time(),
            "free_wanted": settings.POOL_FREE,
            "held_wanted": aim.slots if aim else None,
            "held_by_gpus": aim.by_gpus if aim else {},
            "held_reason": aim.reason if aim else "",
            "min_residence_s": settings.POOL_MIN_RESIDENCE_S,
            "sleepers_wanted": settings.POOL_SLEEPERS,
            "predicts": settings.POOL_PREDICT,
            "habits_at": learned.timestamp() if learned else None,
            "woken_ahead": tally.ahead,
            "asked_for_in_time": tally.came,
            "floors": owed.teams,
            "floors_lacking": owed.lacking,
            "slots": [_slot(slot) for slot in found.slots],
            "waiting": found.waiting,
        }
        return Response(PoolShape(shown).data)


class ActivationFilters(Filters):
    since = since("asked_at")
    until = until("asked_at")
    state = filters.ChoiceFilter(choices=[(state, state) for state in STATES])

    class Meta:
        model = Activation
        fields = ["deployment", "partition"]


@extend_schema_view(
    list=extend_schema(
        summary="List activations",
        description="Newest first: each model that was asked for while nothing served it, and what came of it.",
    ),
    retrieve=extend_schema(summary="One activation"),
)
class Activations(ListModelMixin, RetrieveModelMixin, Resource):
    """A model that was woken, or was to be."""

    noun = "activation"
    queryset = Activation.objects.select_related("deployment", "partition", "partner")
    serializer_class = ActivationShape
    filterset_class = ActivationFilters
    pagination_class = Cursor
    ordering = ["-id"]


def _slot(slot: SlotNow) -> dict[str, Any]:
    row, resident = slot.partition, slot.resident
    return {
        "partition": row,
        "node": row.node,
        "gpus": slot.gpus,
        "memory_bytes": slot.memory_bytes,
        "place": slot.place.value,
        "status": slot.status,
        "deployment": row.deployment,
        "role": row.role or None,
        "pair_with": slot.pair_with,
        "lent_why": slot.lent_why,
        "since": row.phase_since.timestamp() if row.phase_since else None,
        "in_flight": resident.in_flight if resident and row.deployment else None,
        "idle_s": resident.idle_s if resident and row.deployment else None,
        "keep_alive_s": resident.keep_alive_s if resident and row.deployment else None,
        "keep_alive_why": slot.keep_why if resident and row.deployment else None,
        "sleepers": [_sleeper(one) for one in slot.sleepers],
        "sleep_why_not": sleeping.why_not(row.node),
    }


def _sleeper(row: Sleeper) -> dict[str, Any]:
    return {
        "deployment": row.deployment,
        "since": row.asleep_since.timestamp() if row.asleep_since else None,
        "level": row.level,
        "host_bytes": row.host_bytes,
        "gpu_bytes": row.gpu_bytes,
    }
