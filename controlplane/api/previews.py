"""Answers that say what would happen: memory fits and previews of assignments."""

from __future__ import annotations

from rest_framework import serializers

from controlplane.api.shapes import ROLES


class MemoryShape(serializers.Serializer):
    """Bytes on one GPU. Null: not known."""

    fits = serializers.BooleanField(allow_null=True, help_text="null: could not be checked; `note` says why.")
    fits_at_best = serializers.BooleanField(
        allow_null=True, help_text="With sliding-window layers counted as such; the engine may manage this."
    )
    note = serializers.CharField(allow_blank=True)
    tp = serializers.IntegerField()
    concurrency = serializers.IntegerField()
    context_tokens = serializers.IntegerField()
    gpu_memory_bytes = serializers.IntegerField()
    available_bytes = serializers.IntegerField()
    weights_bytes = serializers.IntegerField(allow_null=True)
    kv_bytes = serializers.IntegerField(allow_null=True)
    overhead_bytes = serializers.IntegerField()
    needed_bytes = serializers.IntegerField(allow_null=True)
    kv_bytes_per_token = serializers.IntegerField(allow_null=True)
    kv_tokens_capacity = serializers.IntegerField(allow_null=True)
    max_concurrency_at_context = serializers.FloatField(allow_null=True)


class FitShape(serializers.Serializer):
    """One kind of GPU in the fleet."""

    kind = serializers.CharField()
    name = serializers.CharField()
    memory_bytes = serializers.IntegerField()
    gpus = serializers.IntegerField(help_text="How many of this kind there are.")
    fit = MemoryShape()


class Obstacle(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    fix = serializers.CharField(allow_blank=True)
    forceable = serializers.BooleanField(help_text="`force: true` overrides it.")


class Assignment(serializers.Serializer):
    deployment = serializers.CharField(allow_null=True)
    role = serializers.ChoiceField(ROLES, allow_null=True)


class AssignPreview(serializers.Serializer):
    """What an assignment would do. `problems` refuse it, `warnings` do not."""

    partition = serializers.IntegerField()
    generation = serializers.IntegerField(help_text="Pass it as `expected_generation` when you apply this.")
    before = Assignment()
    after = Assignment()
    action = serializers.ChoiceField(
        ["none", "start", "relabel", "replace"],
        help_text="start: nothing runs there now. relabel: the engine stays, requests are sent to it differently. "
        "replace: the engine drains and ends, then the new one starts.",
    )
    expected_s = serializers.FloatField(
        allow_null=True,
        help_text="Seconds until the change is in force. relabel: about so many. start: the median of how long the "
        "deployment's replicas last took to get ready. replace: that, and the longest that the engine may drain. "
        "null: nothing would change, or nothing was measured.",
    )
    problems = Obstacle(many=True)
    forceable = serializers.BooleanField(help_text="`force: true` overrides all of the problems.")
    warnings = Obstacle(many=True)
    fit = MemoryShape(allow_null=True)
