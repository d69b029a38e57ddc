"""How changes look: what would happen, and what was and is done."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from controlplane.api.previews import MemoryShape, Obstacle
from controlplane.api.shapes import ROLES, Link
from controlplane.fleet import change_facts
from controlplane.fleet.models import Change

ACTIONS = ["none", "start", "relabel", "replace", "stop"]
STEP_STATES = ["waiting", "running", "done", "failed"]
ACTION_TEXT = (
    "start: no engine runs there now. relabel: the engine stays, requests are sent to it differently. replace: the "
    "engine drains and ends, then the new one starts. stop: the engine drains and ends."
)


def _seconds(text: str) -> serializers.FloatField:
    return serializers.FloatField(allow_null=True, default=None, help_text=text)


def _figure(text: str = "") -> serializers.FloatField:
    return serializers.FloatField(allow_null=True, help_text=text)


class AssignedShape(serializers.Serializer):
    """Both null: nothing."""

    deployment = Link(allow_null=True)
    role = serializers.ChoiceField(ROLES, allow_null=True)


class ChangeMoveShape(serializers.Serializer):
    partition = Link(help_text="Its name with the node's, as node-3/p1.")
    node = Link()
    gpus = serializers.IntegerField()
    before = AssignedShape()
    after = AssignedShape()
    action = serializers.ChoiceField(ACTIONS, help_text=ACTION_TEXT)


class MovePreviewShape(ChangeMoveShape):
    in_flight = _figure("Requests that its engine has, running and waiting.")
    waiting = _figure("Of those, in its queue.")
    expected_s = _seconds("Seconds it likely takes. null: not known.")
    at_most_s = _seconds("Seconds at the longest, draining included, if the engine starts as they usually do.")
    problems = Obstacle(many=True)
    warnings = Obstacle(many=True)
    fit = MemoryShape(allow_null=True)


class StepPreviewShape(serializers.Serializer):
    number = serializers.IntegerField()
    partition = serializers.IntegerField()
    name = serializers.CharField()
    action = serializers.ChoiceField(ACTIONS)
    text = serializers.CharField()
    expected_s = _seconds("Seconds it likely takes. null: not known.")


class EffectShape(serializers.Serializer):
    """One role of one deployment that gains, loses or exchanges an engine."""

    deployment = Link()
    role = serializers.ChoiceField(ROLES)
    engines_before = serializers.IntegerField()
    engines_after = serializers.IntegerField()
    gpus_before = serializers.IntegerField()
    gpus_after = serializers.IntegerField()
    in_flight = _figure("Requests in this role now.")
    per_engine_before = _figure()
    per_engine_after = _figure()
    min = serializers.IntegerField()
    max = serializers.IntegerField(allow_null=True)
    text = serializers.CharField(allow_blank=True)


class ServedShape(serializers.Serializer):
    """How a deployment that is concerned was served in the last minute."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    rps = _figure("Requests a second.")
    ttft_p95_ms = _figure()
    itl_p95_ms = _figure()
    slo_ttft_ms = _figure()
    slo_itl_ms = _figure()


class RecycleShape(serializers.Serializer):
    partition = Link()
    text = serializers.CharField()


class ChangePreviewShape(serializers.Serializer):
    """What the moves would do, all together. `problems` refuse it, `warnings` do not."""

    version = serializers.IntegerField(help_text="Of the fleet. Pass it when you apply this.")
    moves = MovePreviewShape(many=True)
    steps = StepPreviewShape(many=True, help_text="In the order in which they are taken, one at a time.")
    effects = EffectShape(many=True)
    deployments = ServedShape(many=True)
    recycles = RecycleShape(many=True, help_text="Engines that must start again because of this.")
    problems = Obstacle(many=True, help_text="Of all moves, and of the whole.")
    forceable = serializers.BooleanField(help_text="`force: true` overrides all of the problems.")
    warnings = Obstacle(many=True)
    expected_s = _seconds("Seconds that all of it likely takes. null: not known.")


class StepShape(StepPreviewShape):
    action = serializers.ChoiceField(ACTIONS, allow_null=True, default=None)
    state = serializers.ChoiceField(STEP_STATES)
    back = serializers.BooleanField(help_text="It is on the way back.")
    progress = serializers.CharField(allow_blank=True, help_text="What its engine does at this moment, in words.")
    began_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    message = serializers.CharField(allow_blank=True, help_text="Why it failed.")


class ChangeShape(serializers.Serializer):
    """running -> done, stopped or rolled_back; stopped -> running, forwards by resume or backwards by rollback."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(Change.Kind.choices)
    state = serializers.ChoiceField(Change.State.choices)
    backwards = serializers.BooleanField(help_text="Its steps lead back to what was before.")
    reason = serializers.CharField(allow_blank=True)
    force = serializers.BooleanField()
    actor = serializers.CharField()
    version = serializers.IntegerField(help_text="Of the fleet that it was planned on.")
    message = serializers.CharField(allow_blank=True, help_text="Why it waits or stopped.")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    undoes = serializers.IntegerField(allow_null=True, help_text="The change that this undid.")
    undone_by = serializers.IntegerField(allow_null=True, help_text="The change that undid this.")
    undoable = serializers.BooleanField(help_text="It is done and was not undone; the preview of undo says more.")
    node = serializers.IntegerField(allow_null=True, help_text="It is drained once all moves are made.")
    partitions = serializers.ListField(child=serializers.IntegerField(), help_text="Ids of those that it moves.")
    moves = ChangeMoveShape(many=True)
    steps = StepShape(many=True)
    steps_done = serializers.IntegerField()
    steps_total = serializers.IntegerField()

    def to_representation(self, change: Change) -> dict[str, Any]:
        return super().to_representation(change_facts.facts(change, timezone.now()))
