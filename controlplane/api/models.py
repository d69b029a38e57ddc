"""Answers kept for a repeat of the same request. The only writer is api.idempotency."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class KeptAnswer(models.Model):
    """One write that came with an Idempotency-Key. Null `status`: it runs, at the longest until the lease ends."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64)  # hex, keyed: a body may hold a password
    lease = models.CharField(max_length=32)  # whose run this is: a later one may have taken over
    leased_until = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="kept_answer_key_per_user")]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.key}"
