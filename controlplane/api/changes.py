"""Changes: several moves that belong together, previewed, applied step by step, undone."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.change_shapes import ChangePreviewShape, ChangeShape
from controlplane.api.filters import Filters, YesNo, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import DRY_RUN, Resource
from controlplane.api.shapes import ROLES
from controlplane.api.strict import MAX_ID, Body, Id, Reason
from controlplane.domain.rollout import Move
from controlplane.domain.types import Role
from controlplane.fleet import services
from controlplane.fleet.models import Change
from controlplane.fleet.services import Shift
from controlplane.planning import load

MOST = 256
OPEN = (Change.State.RUNNING, Change.State.STOPPED)


class MoveBody(Body):
    partition = Id()
    deployment = Id(allow_null=True, help_text="null, and the role null: release it.")
    role = serializers.ChoiceField(ROLES, allow_null=True)


class ShiftBody(Body):
    """So many GPUs from one role to another; the server chooses the partitions."""

    deployment = Id()
    from_role = serializers.ChoiceField(ROLES)
    to_role = serializers.ChoiceField(ROLES)
    gpus = serializers.IntegerField(min_value=1, max_value=100_000)
    to_deployment = Id(required=False, allow_null=True, default=None, help_text="null: the same deployment.")


def _version(**options: Any) -> serializers.IntegerField:
    text = "The preview's; 409 `stale-plan` when what the plan concerns was changed since. A preview needs none."
    return serializers.IntegerField(min_value=0, max_value=MAX_ID, required=False, help_text=text, **options)


class UndoBody(Reason):
    version = _version()
    force = serializers.BooleanField(required=False, default=False, help_text="Override problems that are `forceable`.")


class ChangeBody(UndoBody):
    moves = MoveBody(many=True, required=False, default=list, max_length=MOST)
    shifts = ShiftBody(
        many=True, required=False, default=list, max_length=MOST,
        help_text="To apply exactly what a preview showed, send its moves instead.",
    )  # fmt: skip


class ChangeFilters(Filters):
    open = YesNo(method="by_open", help_text="true: running or stopped.")
    undoable = YesNo(method="by_undoable", help_text="true: done, and not undone.")
    partition = filters.NumberFilter(method="by_mention", help_text="One of its moves is of this partition.")
    deployment = filters.NumberFilter(method="by_mention", help_text="One of its moves leaves or joins it.")
    actor = filters.CharFilter(field_name="actor_name")
    since = since("created_at")
    until = until("created_at")

    class Meta:
        model = Change
        fields = ["state", "kind"]

    def by_open(self, queryset: QuerySet[Change], name: str, value: bool) -> QuerySet[Change]:
        return queryset.filter(state__in=OPEN) if value else queryset.exclude(state__in=OPEN)

    def by_undoable(self, queryset: QuerySet[Change], name: str, value: bool) -> QuerySet[Change]:
        undoable = Q(state=Change.State.DONE, undone_by=None)
        return queryset.filter(undoable) if value else queryset.exclude(undoable)

    def by_mention(self, queryset: QuerySet[Change], name: str, value: Any) -> QuerySet[Change]:
        """By the moves' text: both databases write an id first, and within a JSON text no quote stands alone."""
        return queryset.annotate(told=Cast("moves", TextField())).filter(told__contains=f'"{name}": {{"id": {value}, ')


@extend_schema_view(
    list=extend_schema(summary="List changes", description="Newest first, with their moves and steps."),
    retrieve=extend_schema(summary="One change", description="With each of its steps: follow it until it is `done`."),
)
class Changes(ListModelMixin, RetrieveModelMixin, Resource):
    """Several moves that belong together, applied one safe step at a time."""

    noun = "change"
    role_actions = {
        "create": "partition.assign",
        "undo": "partition.assign",
        "resume": "partition.assign",
        "rollback": "partition.assign",
    }
    preview_actions = {"create": "view", "undo": "view"}
    queryset = Change.objects.select_related("undone_by").defer("plan", "undone_by__plan")
    serializer_class = ChangeShape
    filterset_class = ChangeFilters
    pagination_class = Cursor
    ordering = ["-id"]
    parameters = {"create": {"dry_run"}, "undo": {"dry_run"}}
    bodies = {"create": ChangeBody, "undo": UndoBody, "resume": Reason, "rollback": Reason}

    @extend_schema(
        summary="Apply or preview a change",
        description=(
            "Several partitions at once: moves that name them, or shifts of so many GPUs for which the server chooses "
            "them. With `dry_run=true` nothing changes and the answer is a preview: the steps, what they do to those "
            "who are served, how long it takes, what stands against it. Applied, the first step is taken at once and "
            "the others follow by themselves, each when the one before is confirmed; no role of a serving deployment "
            "is left empty on the way. A step that fails stops the change: resume it or roll it back."
        ),
        parameters=[DRY_RUN],
        request=ChangeBody,
        responses={200: ChangePreviewShape, 201: ChangeShape},
        examples=[
            OpenApiExample(
                "two moves",
                value={
                    "moves": [
                        {"partition": 12, "deployment": 3, "role": "prefill"},
                        {"partition": 13, "deployment": None, "role": None},
                    ],
                    "version": 41,
                    "reason": "long prompts",
                },
                request_only=True,
            ),
            OpenApiExample(
                "two GPUs from decode to prefill",
                value={
                    "shifts": [{"deployment": 3, "from_role": "decode", "to_role": "prefill", "gpus": 2}],
                    "version": 41,
                },
                request_only=True,
            ),
        ],
    )
    def create(self, request: Request) -> Response:
        body = self.body()
        live = load.live()
        moves = [_move(row) for row in body["moves"]]
        if body["shifts"]:
            moves += services.choose_moves([_shift(row) for row in body["shifts"]], live=live)
        if self.flag("dry_run"):
            return Response(ChangePreviewShape(services.preview_change(moves, actor=self.actor, live=live)).data)
        made = services.apply_change(moves, **self._agreed(body), live=live)
        return self.shown(made.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Undo a change, or preview that",
        description="The inverse of a change that is done, as a change of its own; slots that it took out of "
        "the pool or set aside for it go back as well. 409 where somebody has changed its partitions since.",
        parameters=[DRY_RUN],
        request=UndoBody,
        responses={200: ChangePreviewShape, 201: ChangeShape},
        examples=[OpenApiExample("as previewed", value={"version": 42, "reason": "worse"}, request_only=True)],
    )
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str) -> Response:
        body = self.body()
        moves, live = services.inverse_moves(self.id), load.live()
        if self.flag("dry_run"):
            shown = services.preview_change(moves, actor=self.actor, live=live, undoes=self.id)
            return Response(ChangePreviewShape(shown).data)
        made = services.apply_change(
            moves, **self._agreed(body), live=live, kind=Change.Kind.UNDO.value, undoes=self.id
        )
        return self.shown(made.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Resume a change",
        description="Goes on with one that stopped, in the direction that it had.",
        request=Reason,
        responses=ChangeShape,
    )
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        services.resume_change(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Roll a change back",
        description="Leads one that is running or stopped back to what was before, one safe step at a time.",
        request=Reason,
        responses=ChangeShape,
    )
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, pk: str) -> Response:
        services.roll_back_change(self.id, **self.body(), actor=self.actor)
        return self.shown()

    def _agreed(self, body: dict[str, Any]) -> dict[str, Any]:
        """What applying takes besides the moves. Nobody applies what was not previewed."""
        if "version" not in body:
            text = "Send the version of the preview that you agreed to."
            raise serializers.ValidationError({"version": [serializers.ErrorDetail(text, code="required")]})
        return {"version": body["version"], "reason": body["reason"], "force": body["force"], "actor": self.actor}


def _move(row: dict[str, Any]) -> Move:
    return Move(row["partition"], row["deployment"], Role(row["role"]) if row["role"] else None)


def _shift(row: dict[str, Any]) -> Shift:
    return Shift(row["deployment"], Role(row["from_role"]), Role(row["to_role"]), row["gpus"], row["to_deployment"])
