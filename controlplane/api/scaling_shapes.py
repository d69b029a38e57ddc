"""How dedicated deployments' roles and the plans for them look."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.api.change_shapes import AssignedShape, ChangePreviewShape
from controlplane.api.shapes import ROLES, Link
from controlplane.domain.scaling import Kind
from controlplane.scaling import standing
from controlplane.scaling.models import LaneLook, ScalingPlan

KIND_TEXT = (
    "keep: as it should be. hold: something is not known, or it is too soon. bound: its least or most. forecast: the "
    "load to come. pressure: the load now. lost: engines will not come back. quiet: fewer have been enough for long."
)


class LaneShape(serializers.ModelSerializer):
    """One role of one dedicated deployment, at the last look."""

    deployment = Link()
    role = serializers.ChoiceField(ROLES)
    kind = serializers.ChoiceField([kind.value for kind in Kind], help_text=KIND_TEXT)

    class Meta:
        model = LaneLook
        fields = [
            "deployment", "role", "at", "count", "ready", "lost", "wanted", "kind", "why", "short", "floor",
            "floor_why", "floor_at", "other", "other_ratio", "other_at", "rate_now", "rate_coming", "fewer_since",
        ]  # fmt: skip
        extra_kwargs = {
            "count": {"help_text": "Engines assigned, without lost ones."},
            "ready": {"help_text": "Of them, those that serve."},
            "lost": {"help_text": "Engines that will not come back by themselves: others take their place."},
            "wanted": {"help_text": "Engines that it shall have."},
            "short": {"help_text": "Engines for which there is no partition."},
            "floor": {"help_text": "Engines by the forecast; null: not known."},
            "floor_why": {"help_text": "What it is for, or why it is not known."},
            "floor_at": {"help_text": "It holds for ten minutes from then, or until the rate leaves it."},
            "other": {"help_text": "What aggregated engines would take, or disaggregated, whichever these are not."},
            "other_ratio": {
                "help_text": "Its price over that of these, by GPUs where one has none. null: not known, or one of the "
                "two kinds keeps no objective."
            },
            "other_at": {
                "help_text": "When it was compared; it holds for an hour, or until the rate leaves it. null: not."
            },
            "rate_now": {"help_text": "Requests a second."},
            "rate_coming": {"help_text": "To be expected of the next 10 minutes, at the policy's level."},
            "fewer_since": {"help_text": "Fewer engines would have done since."},
        }


class PlanMoveShape(serializers.Serializer):
    partition = Link(help_text="Its name with the node's, as node-3/p1.")
    before = AssignedShape(allow_null=True, help_text="null: not known.")
    after = AssignedShape(allow_null=True)
    why = serializers.CharField()


class PoolMoveShape(serializers.Serializer):
    """Set aside for the pool, or taken back from it."""

    partition = serializers.IntegerField()
    name = serializers.CharField()
    pool = serializers.BooleanField()
    why = serializers.CharField()


class ScalingPlanShape(serializers.ModelSerializer):
    """open -> applied, dismissed or superseded by one with other moves."""

    moves = serializers.SerializerMethodField()
    pool = PoolMoveShape(many=True)
    held_back = serializers.ListField(
        child=serializers.CharField(), help_text="Why only a person applies it; empty: nothing kept it."
    )
    change = serializers.IntegerField(source="change_id", allow_null=True, help_text="That it was applied as.")

    class Meta:
        model = ScalingPlan
        fields = [
            "id", "state", "made_at", "seen_at", "moves", "pool", "held_back", "change", "automatic", "switches",
            "decided_at", "decided_by", "reason",
        ]  # fmt: skip
        extra_kwargs = {
            "seen_at": {"help_text": "The last look that came to the same moves."},
            "automatic": {"help_text": "It was applied by itself."},
            "switches": {"help_text": "From aggregated engines to disaggregated ones, or back."},
        }

    @extend_schema_field(PlanMoveShape(many=True))
    def get_moves(self, plan: ScalingPlan) -> list[dict[str, Any]]:
        return PlanMoveShape(standing.told_moves(plan), many=True).data


class ScalingPlanDetail(ScalingPlanShape):
    """With what it does, as it was previewed at `seen_at`."""

    preview = serializers.SerializerMethodField(help_text="null: it moves no engine.")

    class Meta(ScalingPlanShape.Meta):
        fields = [*ScalingPlanShape.Meta.fields, "preview"]

    @extend_schema_field(ChangePreviewShape(allow_null=True))
    def get_preview(self, plan: ScalingPlan) -> dict[str, Any] | None:
        return ChangePreviewShape(plan.preview).data if plan.preview else None


class ScalingShape(serializers.Serializer):
    looked_at = serializers.DateTimeField(allow_null=True, help_text="null: there was nothing to look at.")
    late = serializers.BooleanField(help_text="No look for three minutes: the control worker does not work.")
    lanes = LaneShape(many=True)
    plan = ScalingPlanDetail(allow_null=True, help_text="The one that is open.")
