"""What a drain takes, and how its preview looks."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from controlplane.api.change_shapes import ChangePreviewShape
from controlplane.api.previews import Obstacle
from controlplane.api.shapes import ROLES, Link
from controlplane.api.strict import MAX_ID, Reason
from controlplane.fleet import services

DRAIN = (
    "Cordons it, and ends its engines once their requests have ended, at the latest at the deadline. Its assignments "
    "are kept. Sent again with a deadline while it drains, that is the new deadline. With `move` each engine gets a "
    "free partition of another node first: the answer is a change (201), and the drain is its last act; where nothing "
    "is to be moved it drains at once. With `dry_run=true` nothing changes and the answer is a preview: its engines "
    "one by one, where they go or why they can't, and what is lost."
)


class DrainBody(Reason):
    deadline_s = serializers.FloatField(
        required=False,
        min_value=0,
        max_value=services.MAX_DEADLINE_S,
        help_text="Seconds from now, or from when its engines serve elsewhere, after which those here are ended though "
        "requests still run on them. Without it each engine has the drain_s of its deployment.",
    )
    move = serializers.BooleanField(required=False, default=False, help_text="Give its engines other places first.")
    version = serializers.IntegerField(
        required=False, min_value=0, max_value=MAX_ID,
        help_text="The preview's, needed with `move`; 409 `stale-plan` when what it concerns was changed since.",
    )  # fmt: skip
    force = serializers.BooleanField(
        required=False, default=False, help_text="With `move`: drain though some of them find no room."
    )


class LeavingShape(serializers.Serializer):
    """One engine of the node."""

    partition = Link()
    deployment = Link()
    role = serializers.ChoiceField(ROLES)
    gpus = serializers.IntegerField()
    in_flight = serializers.FloatField(allow_null=True, help_text="Requests that it has. null: not known.")
    drain_s = serializers.FloatField(help_text="How long they get at the most.")
    to = Link(allow_null=True, help_text="The partition that takes its place.")
    reasons = serializers.ListField(child=serializers.CharField(), help_text="What speaks for that one.")
    problem = Obstacle(allow_null=True, help_text="Why there is none, where it was to be moved.")


class DrainPreviewShape(ChangePreviewShape):
    """The preview of the change, and of the drain that ends it."""

    node = Link()
    deadline_s = serializers.FloatField(allow_null=True)
    leaving = LeavingShape(many=True)


def agreed_version(body: dict[str, Any]) -> int:
    """Nobody moves engines elsewhere without having seen where."""
    if "version" not in body:
        text = "Send the version of the preview that you agreed to."
        raise serializers.ValidationError({"version": [serializers.ErrorDetail(text, code="required")]})
    return body["version"]
