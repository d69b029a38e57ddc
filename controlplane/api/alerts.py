"""Alerts and silences: what is wrong now and was, taking it on, muting what is known."""

from __future__ import annotations

from http import HTTPStatus

from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.alerts import services
from controlplane.alerts.matching import in_force, silence_of
from controlplane.alerts.models import SEVERITY_CHOICES, Alert, Silence
from controlplane.api.filters import Filters, YesNo, since, until
from controlplane.api.pagination import Cursor
from controlplane.api.resource import REASON, Resource
from controlplane.api.strict import Body

LABELS = "Each must be so; node and deployment are names too. {}: everything."


class Labels(serializers.DictField):
    child = serializers.CharField(max_length=255, allow_blank=True)


class SubjectShape(serializers.Serializer):
    type = serializers.CharField(help_text="node, gpu, partition, deployment, gatewaybeat, brakerow, team.")
    id = serializers.IntegerField()
    name = serializers.CharField()


class AlertShape(serializers.ModelSerializer):
    title = serializers.CharField(help_text="The rule in words.")
    subject = serializers.SerializerMethodField()
    labels = Labels(help_text="Of what it is about, for silences.")
    silenced_until = serializers.SerializerMethodField(help_text="Nobody is told until then; null: no silence.")

    class Meta:
        model = Alert
        fields = [
            "id", "rule", "title", "severity", "state", "subject", "labels", "value", "text", "since", "fired_at",
            "resolved_at", "acknowledged_at", "acknowledged_by", "note", "silenced_until",
        ]  # fmt: skip
        extra_kwargs = {
            "value": {"help_text": "The last that was known, in the unit of the rule."},
            "since": {"help_text": "When it was first seen; it fires once it has been so for the rule's duration."},
        }

    @extend_schema_field(SubjectShape)
    def get_subject(self, alert: Alert) -> dict[str, object]:
        return {"type": alert.subject_type, "id": alert.subject_id, "name": alert.subject_name}

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_silenced_until(self, alert: Alert) -> str | None:
        if alert.state == Alert.State.RESOLVED:
            return None
        found = silence_of(alert, self.context.setdefault("silences", in_force(timezone.now())))
        return serializers.DateTimeField().to_representation(found.until) if found else None


class AcknowledgeBody(Body):
    note = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=500, help_text="What is being done about it."
    )


class AlertFilters(Filters):
    state = filters.ChoiceFilter(choices=Alert.State.choices)
    severity = filters.ChoiceFilter(choices=SEVERITY_CHOICES)
    rule = filters.CharFilter()
    subject = filters.CharFilter(field_name="subject_name", help_text="The subject's whole name.")
    acknowledged = YesNo(field_name="acknowledged_at", lookup_expr="isnull", exclude=True)
    since = since("since")
    until = until("since")

    class Meta:
        model = Alert
        fields: list[str] = []


@extend_schema_view(
    list=extend_schema(summary="List alerts", description="Newest first, those that ended too: kept for 90 days."),
    retrieve=extend_schema(summary="One alert"),
)
class Alerts(ListModelMixin, RetrieveModelMixin, Resource):
    """What a rule found wrong with a node, a GPU, an engine, a deployment, a gateway."""

    noun = "alert"
    role_actions = {"acknowledge": "alert.acknowledge"}
    queryset = Alert.objects.all()
    serializer_class = AlertShape
    filterset_class = AlertFilters
    pagination_class = Cursor
    filter_backends = Resource.filter_backends[:1]
    bodies = {"acknowledge": AcknowledgeBody}

    @extend_schema(
        summary="Acknowledge an alert",
        description="Others see who looks after it. Without a note the earlier one stays. Refused where it does not "
        "fire (any more).",
        request=AcknowledgeBody,
        responses=AlertShape,
        examples=[OpenApiExample("on it", value={"note": "rebooting the host"}, request_only=True)],
    )
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        services.acknowledge(self.id, **self.body(), actor=self.actor)
        return self.shown()


class SilenceShape(serializers.ModelSerializer):
    labels = Labels(help_text=LABELS)

    class Meta:
        model = Silence
        fields = ["id", "rule", "subject", "labels", "reason", "created_by", "created_at", "until"]


class SilenceBody(Body):
    rule = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=40, help_text="A rule's key; empty: any."
    )
    subject = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=255, help_text="Its name, * for anything; empty: any."
    )
    labels = Labels(required=False, default=dict, help_text=LABELS)
    until = serializers.DateTimeField(help_text="Within 30 days.")
    reason = serializers.CharField(max_length=500, help_text="Kept in the audit trail.")


class SilenceFilters(Filters):
    active = YesNo(method="only_active", help_text="true: those that mute now.")

    class Meta:
        model = Silence
        fields: list[str] = []

    def only_active(self, rows: object, name: str, value: bool) -> object:
        now = timezone.now()
        return rows.filter(until__gt=now) if value else rows.filter(until__lte=now)  # type: ignore[attr-defined]


@extend_schema_view(
    list=extend_schema(summary="List silences", description="Newest first, those that are over too."),
    retrieve=extend_schema(summary="One silence"),
)
class Silences(ListModelMixin, RetrieveModelMixin, Resource):
    """Nobody is told of what a silence matches; alerts are listed all the same."""

    noun = "silence"
    role_actions = {"create": "alert.silence", "destroy": "alert.silence"}
    queryset = Silence.objects.all()
    serializer_class = SilenceShape
    filterset_class = SilenceFilters
    ordering = ["-id"]
    ordering_fields = ["id", "until", "created_at"]
    parameters = {"destroy": {"reason"}}
    bodies = {"create": SilenceBody}

    @extend_schema(
        summary="Silence alerts",
        description="Of a rule, a subject or a label, or all three together. What fires still at its end is told then.",
        request=SilenceBody,
        responses={201: SilenceShape},
        examples=[
            OpenApiExample(
                "a rack is being moved",
                value={"labels": {"rack": "b12"}, "until": "2026-12-01T18:00:00Z", "reason": "rack b12 moves"},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        made = services.silence(**self.body(), actor=self.actor)
        return self.shown(made.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="End a silence",
        description="It mutes nothing from now on, and is listed as over.",
        parameters=[REASON],
        responses={200: SilenceShape},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.end_silence(self.id, actor=self.actor, reason=self.reason())
        return self.shown()
