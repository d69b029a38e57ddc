"""The rules that alerts come from, and the targets that are told."""

from __future__ import annotations

from http import HTTPStatus

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.alerts import services
from controlplane.alerts.models import SEVERITY_CHOICES, AlertRule, AlertTarget
from controlplane.api.alerts import LABELS, Labels
from controlplane.api.filters import Filters, YesNo
from controlplane.api.resource import REASON, Resource
from controlplane.api.strict import Body, Nothing, Reason


class AlertRuleShape(serializers.ModelSerializer):
    title = serializers.CharField(source="kind.title")
    text = serializers.CharField(source="kind.text", help_text="What it watches.")
    subject = serializers.CharField(source="kind.subject", help_text="What it is about, as node or gpu.")
    unit = serializers.CharField(source="kind.unit", help_text="Of the threshold; empty: a share, or yes and no.")
    above = serializers.BooleanField(source="kind.above", help_text="false: less than the threshold is bad.")
    fixed = serializers.BooleanField(source="kind.fixed", help_text="true: its threshold has no other value.")
    default_threshold = serializers.FloatField(source="kind.threshold")
    default_for_s = serializers.FloatField(source="kind.for_s")
    labels = Labels(help_text=LABELS)

    class Meta:
        model = AlertRule
        fields = [
            "id", "key", "title", "text", "subject", "unit", "above", "fixed", "enabled", "threshold",
            "default_threshold", "for_s", "default_for_s", "severity", "labels",
        ]  # fmt: skip
        extra_kwargs = {"for_s": {"help_text": "Seconds it must be so before the alert fires."}}


class AlertRuleBody(Reason):
    enabled = serializers.BooleanField(required=False, help_text="false: what fires of it ends.")
    threshold = serializers.FloatField(required=False, min_value=0, max_value=1e18)
    for_s = serializers.FloatField(required=False, min_value=0, max_value=7 * 24 * 3600)
    severity = serializers.ChoiceField(SEVERITY_CHOICES, required=False)
    labels = Labels(required=False, help_text=LABELS)


class AlertRuleFilters(Filters):
    class Meta:
        model = AlertRule
        fields = ["key", "enabled"]


@extend_schema_view(
    list=extend_schema(summary="List alert rules", description="All that there are, with the limits in force."),
    retrieve=extend_schema(summary="One alert rule"),
)
class AlertRules(ListModelMixin, RetrieveModelMixin, Resource):
    """What alerts come from. The list is fixed; an admin sets the limits."""

    noun = "alert rule"
    role_actions = {"partial_update": "alert.configure"}
    queryset = AlertRule.objects.all()
    serializer_class = AlertRuleShape
    filterset_class = AlertRuleFilters
    ordering = ["id"]
    ordering_fields = ["id", "key"]
    bodies = {"partial_update": AlertRuleBody}

    @extend_schema(
        summary="Change an alert rule",
        description="What is sent is changed, all of it or nothing. It holds from the next look, within 10 seconds.",
        request=AlertRuleBody,
        responses=AlertRuleShape,
        examples=[OpenApiExample("hotter", value={"threshold": 92, "for_s": 120}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.change_rule(self.id, **self.body(), actor=self.actor)
        return self.shown()


class AlertTargetShape(serializers.ModelSerializer):
    address = serializers.CharField(source="shown", help_text="Its host alone where a path could open it.")

    class Meta:
        model = AlertTarget
        fields = ["id", "name", "kind", "address", "enabled", "min_severity", "created_at", "sent_at", "error"]
        extra_kwargs = {
            "sent_at": {"help_text": "When it last took a notification."},
            "error": {"help_text": "Why it did not take the last one; empty: it did."},
        }


class AlertTargetChange(Body):
    name = serializers.CharField(required=False, max_length=120)
    address = serializers.CharField(
        required=False, allow_blank=True, max_length=2000,
        help_text="A URL; e-mail addresses with commas; PagerDuty needs none. Never shown again.",
    )  # fmt: skip
    secret = serializers.CharField(
        required=False, allow_blank=True, max_length=2000,
        help_text="What signs a webhook, or PagerDuty's routing key. Never shown again.",
    )  # fmt: skip
    min_severity = serializers.ChoiceField(SEVERITY_CHOICES, required=False, help_text="It hears of no lesser ones.")
    enabled = serializers.BooleanField(required=False)


class AlertTargetBody(AlertTargetChange):
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(AlertTarget.Kind.choices)


class TrialShape(serializers.Serializer):
    ok = serializers.BooleanField(help_text="Whether it took the message.")
    message = serializers.CharField(help_text="What it answered, or what went wrong.")


class AlertTargetFilters(Filters):
    kind = filters.ChoiceFilter(choices=AlertTarget.Kind.choices)
    enabled = YesNo()

    class Meta:
        model = AlertTarget
        fields: list[str] = []


@extend_schema_view(
    list=extend_schema(summary="List alert targets", description="By name."),
    retrieve=extend_schema(summary="One alert target"),
)
class AlertTargets(ListModelMixin, RetrieveModelMixin, Resource):
    """Where alerts are sent: webhook, Slack, e-mail, PagerDuty, and what takes the same. Admins only."""

    noun = "alert target"
    role_action = "alert.configure"
    queryset = AlertTarget.objects.all()
    serializer_class = AlertTargetShape
    filterset_class = AlertTargetFilters
    ordering = ["name"]
    ordering_fields = ["id", "name", "sent_at"]
    parameters = {"destroy": {"reason"}}
    bodies = {"create": AlertTargetBody, "partial_update": AlertTargetChange, "test": Nothing}

    @extend_schema(
        summary="Make an alert target",
        description="A webhook gets JSON; with a secret, `Forebay-Signature: t=...,v1=...` holds the HMAC-SHA256 of "
        "`t.body`. `Idempotency-Key` is the same each time that a notification is tried.",
        request=AlertTargetBody,
        responses={201: AlertTargetShape},
        examples=[
            OpenApiExample(
                "a chat",
                value={"name": "on call", "kind": "slack", "address": "https://hooks.chat.example/T0/B0/x"},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        made = services.create_target(**self.body(), actor=self.actor)
        return self.shown(made.pk, HTTPStatus.CREATED)

    @extend_schema(
        summary="Change an alert target",
        description="What is sent is changed; its kind stays.",
        request=AlertTargetChange,
        responses=AlertTargetShape,
        examples=[OpenApiExample("only what is urgent", value={"min_severity": "critical"}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        services.change_target(self.id, **self.body(), actor=self.actor)
        return self.shown()

    @extend_schema(
        summary="Delete an alert target",
        description="What it was not told yet it will not be.",
        parameters=[REASON],
        responses={204: OpenApiResponse(description="It is gone.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_target(self.id, actor=self.actor, reason=self.reason())
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(
        summary="Try an alert target",
        description="Sends a message that says it is a test, and answers with what came of it.",
        request=Nothing,
        responses=TrialShape,
    )
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        self.body()
        outcome = services.try_target(self.id, actor=self.actor)
        return Response({"ok": outcome.ok, "message": outcome.message})
