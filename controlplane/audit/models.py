"""Who changed what, when and why: rows that are only ever added, which the database sees to as well. Beside it what
accounts have that Django's and knox's own tables do not hold."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.utils import timezone
from knox.models import AuthToken

from controlplane.audit.roles import SCOPES


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


class TokenGrant(models.Model):
    """What a REST token may be used for. One without it opens nothing."""

    token = models.OneToOneField(AuthToken, on_delete=models.CASCADE, primary_key=True, related_name="grant")
    scope = models.CharField(max_length=8, choices=[(scope, scope) for scope in SCOPES])
    name = models.CharField(max_length=80, blank=True)  # what its owner calls it

    def __str__(self) -> str:
        return self.name or self.token_id[:8]


class ServiceAccount(models.Model):
    """Marks a user that is a program: it has no password and never signs in, its tokens are an admin's to give."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="service")
    description = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150)

    def __str__(self) -> str:
        return self.user.get_username()
