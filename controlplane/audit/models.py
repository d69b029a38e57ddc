"""Who changed what, when and why. Rows are only ever added: the models refuse more, and so does the database."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.utils import timezone


class NeverChanged(Exception):
    """The trail is append-only. What was recorded in error is put right by another event."""

    def __init__(self) -> None:
        super().__init__("An audit event is never changed or deleted. Nothing was changed; record another event.")


class AppendOnly(models.QuerySet["AuditEvent"]):
    def update(self, **columns: Any) -> NoReturn:
        raise NeverChanged

    def delete(self) -> NoReturn:
        raise NeverChanged


class AuditEvent(models.Model):
    """One change by a person or program, or one thing an agent saw. Append-only."""

    class Source(models.TextChoices):
        WEB = "web"
        REST = "rest"
        AGENT = "agent"  # observed on a node: an engine died, a GPU was lost
        SYSTEM = "system"  # a command or a background task

    at = models.DateTimeField(default=timezone.now, db_index=True)
    # Of a deleted user the number stays: to empty it would change the row. The name is what is shown.
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    actor_name = models.CharField(max_length=150)
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

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["subject_type", "subject_id", "-id"])]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.verb} {self.subject_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise NeverChanged
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NeverChanged
