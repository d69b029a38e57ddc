"""Rules as admins left them, alerts and their history, what mutes them, and what is told to whom.

Rules, silences and targets are written by alerts.services, alerts by alerts.evaluation (and an acknowledgement by
alerts.services), notifications and deliveries by alerts.outbox and alerts.courier.
"""

from __future__ import annotations

import uuid

from django.db import models

from controlplane.domain.alert_rules import KINDS, Kind
from controlplane.domain.alerting import SEVERITIES, Limits

SEVERITY_CHOICES = [(severity.value, severity.value) for severity in SEVERITIES]


class AlertRule(models.Model):
    """A rule of domain.alert_rules with the limits that are in force. A row each, made when the database is."""

    key = models.CharField(max_length=40, unique=True)
    enabled = models.BooleanField(default=True)
    threshold = models.FloatField()
    for_s = models.FloatField()
    severity = models.CharField(max_length=8, choices=SEVERITY_CHOICES)
    labels = models.JSONField(default=dict, blank=True)  # only what has all of these; {} = everything

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.kind.title

    @property
    def kind(self) -> Kind:
        return KINDS[self.key]

    @property
    def limits(self) -> Limits:
        return self.kind.limits(self.threshold, self.for_s)


class Alert(models.Model):
    """One trouble of one subject, from its first sight to its end. Names are kept: it outlives what it is about."""

    class State(models.TextChoices):
        """pending -> firing -> resolved; one that never fired is deleted. See domain.alerting."""

        PENDING = "pending"
        FIRING = "firing"
        RESOLVED = "resolved"

    rule = models.CharField(max_length=40, db_index=True)
    severity = models.CharField(max_length=8, choices=SEVERITY_CHOICES)
    subject_type = models.CharField(max_length=40)  # the model's name, as in the audit trail
    subject_id = models.BigIntegerField()
    subject_name = models.CharField(max_length=255)
    node = models.BigIntegerField(null=True)  # whose silence makes it unknown
    labels = models.JSONField(default=dict)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    value = models.FloatField(null=True)  # the last that was known
    text = models.CharField(max_length=500)
    flaps = models.PositiveIntegerField(default=0)
    since = models.DateTimeField()  # first seen
    fired_at = models.DateTimeField(null=True, db_index=True)
    good_since = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True, db_index=True)
    told_at = models.DateTimeField(null=True)  # when its firing was put in the outbox; null: silenced until now
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["state", "-id"])]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "subject_type", "subject_id"],
                condition=~models.Q(state="resolved"),
                name="one_open_alert_per_rule_and_subject",
            )
        ]

    def __str__(self) -> str:
        return f"{self.title}: {self.subject_name}"

    @property
    def simulated(self) -> bool:
        """Of a node that only plays one."""
        return self.labels.get("simulated") == "true"

    @property
    def title(self) -> str:
        return KINDS[self.rule].title if self.rule in KINDS else self.rule


class Silence(models.Model):
    """Nobody is told of what matches, until it ends. Empty fields match anything."""

    rule = models.CharField(max_length=40, blank=True)
    subject = models.CharField(max_length=255, blank=True)  # its name; * stands for anything
    labels = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=500)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        labels = [f"{key}={value}" for key, value in sorted(self.labels.items())]
        return ", ".join([self.rule or "any rule", *([self.subject] if self.subject else []), *labels])[:255]


class AlertTarget(models.Model):
    """Where alerts are sent. Address and secret are kept sealed; nobody is shown them again."""

    class Kind(models.TextChoices):
        WEBHOOK = "webhook"
        SLACK = "slack"
        EMAIL = "email"
        PAGERDUTY = "pagerduty"

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    shown = models.CharField(max_length=255)  # of the address, what everybody may read
    sealed = models.TextField()  # alerts.sealing
    enabled = models.BooleanField(default=True)
    min_severity = models.CharField(max_length=8, choices=SEVERITY_CHOICES, default="warning")
    created_at = models.DateTimeField(auto_now_add=True)
    # courier
    sent_at = models.DateTimeField(null=True)  # the last that was taken
    error = models.CharField(max_length=255, blank=True)  # of the last try; "" = it was taken

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Notification(models.Model):
    """What is sent to one target in one go, with the same key each time that it is tried."""

    class State(models.TextChoices):
        """waiting -> sent | failed (the target refused it, or did not take it for a day)."""

        WAITING = "waiting"
        SENT = "sent"
        FAILED = "failed"

    key = models.UUIDField(default=uuid.uuid4, unique=True)
    target = models.ForeignKey(AlertTarget, on_delete=models.CASCADE, related_name="notifications")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()  # while it is being sent: when whoever sends it has given up
    sent_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["state", "next_at"])]


class Delivery(models.Model):
    """That one target is to hear of one transition of one alert. It happens once."""

    class Transition(models.TextChoices):
        FIRED = "fired"
        RESOLVED = "resolved"

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries")
    transition = models.CharField(max_length=8, choices=Transition.choices)
    target = models.ForeignKey(AlertTarget, on_delete=models.CASCADE, related_name="deliveries")
    notification = models.ForeignKey(Notification, null=True, on_delete=models.CASCADE, related_name="deliveries")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["alert", "transition", "target"], name="told_once_of_each_transition")
        ]
