"""What may be sent about whole nodes."""

from __future__ import annotations

from rest_framework import serializers

from controlplane.api.strict import Body, Id, Reason
from controlplane.domain.plans import PLANS

LABEL_KEY = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$"


class LabelsBody(Body):
    labels = serializers.DictField(
        child=serializers.CharField(max_length=120, allow_blank=True), help_text="Replaces all labels of the node."
    )

    def validate_labels(self, labels: dict[str, str]) -> dict[str, str]:
        """The keys are callers' words; the rule is the one of the filter `?label=`."""
        if len(labels) > 50:
            raise serializers.ValidationError("A node has 50 labels at most.")
        for key in labels:
            serializers.RegexField(LABEL_KEY).run_validation(key)
        return labels


class SplitBody(Body):
    """A preset or groups, never both."""

    preset = serializers.CharField(required=False, max_length=40, help_text="Such as 8x1: eight partitions of one GPU.")
    groups = serializers.ListField(
        child=serializers.ListField(
            child=serializers.IntegerField(min_value=0, max_value=10_000), min_length=1, max_length=1024
        ),
        required=False,
        min_length=1,
        max_length=1024,
        help_text="GPU indices, one list a partition.",
    )


class PlanBody(Reason):
    plan = serializers.ChoiceField(list(PLANS))
    deployment = Id(help_text="What all its partitions run.")
    force = serializers.BooleanField(required=False, default=False, help_text="Override problems that are `forceable`.")
