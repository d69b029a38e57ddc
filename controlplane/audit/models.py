"""Who changed what, when and why. Rows are only ever added."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class AuditEvent(models.Model):
    """One change by a person or program, or one thing an agent saw. Append-only."""

    class Source(models.TextChoices):
        WEB = "web"
        REST = "rest"
        AGENT = "agent"  # observed on a node: an engine died, a GPU was lost
        SYSTEM = "system"  # a command or a background task

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)  # kept when the user is deleted
    source = models.CharField(max_length=8, choices=Source.choices)
    verb = models.CharField(max_length=40, db_index=True)
    subject_type = models.CharField(max_length=40)
    subject_id = models.BigIntegerField(null=True)
    subject_name = models.CharField(max_length=255)
    reason = models.TextField(blank=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    detail = models.TextField(blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    address = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["subject_type", "subject_id", "-id"])]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.verb} {self.subject_name}"
