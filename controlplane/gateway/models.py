"""Keys that open the gateway, and the record of what went through it. Records are written by gateway.records."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from controlplane.teams.models import Team


class ApiKey(models.Model):
    """Lets a program call the OpenAI API. Only its sha256 is kept; written by gateway.services."""

    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=16)  # what people see of it
    key_hash = models.CharField(max_length=64, unique=True)
    deployments = models.JSONField(default=list, blank=True)  # names it may use; [] = all
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class RequestRecord(models.Model):
    """One request. Names instead of foreign keys: a record outlives what served it."""

    at = models.DateTimeField(db_index=True)  # arrival
    request_id = models.CharField(max_length=64)
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    deployment = models.CharField(max_length=120)
    kind = models.CharField(max_length=12)  # chat | completion
    streamed = models.BooleanField(default=False)
    outcome = models.CharField(max_length=16)  # ok | client_error | error | cancelled | rejected
    status = models.PositiveSmallIntegerField()
    error = models.CharField(max_length=255, blank=True)
    path = models.CharField(max_length=12)  # two_step | direct | aggregated | overflow
    prefill = models.CharField(max_length=120, blank=True)  # node/partition
    decode = models.CharField(max_length=120, blank=True)
    attempts = models.PositiveSmallIntegerField(default=1)
    continued = models.PositiveSmallIntegerField(default=0)  # times that its stream went on on another engine
    continued_from = models.CharField(max_length=255, blank=True)  # those it left, in order; `decode` ended it
    prompt_tokens = models.PositiveIntegerField(null=True)
    completion_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    prefill_ms = models.FloatField(null=True)
    transfer_ms = models.FloatField(null=True)  # prefill's answer to decode's first byte
    ttft_ms = models.FloatField(null=True)
    itl_ms = models.FloatField(null=True)  # mean
    total_ms = models.FloatField()
    wake_ms = models.FloatField(null=True)  # it waited so long for its model to be woken; null: one was there

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["deployment", "at"])]

    @property
    def decode_ms(self) -> float | None:
        """From decode's first byte to the end; null where the answer was not streamed."""
        return None if self.ttft_ms is None else self.total_ms - self.ttft_ms


class DemandMinute(models.Model):
    """What was asked of one deployment in one minute, by one gateway process or summed: the planner's history."""

    deployment = models.CharField(max_length=120)
    minute = models.DateTimeField()
    arrivals = models.PositiveIntegerField(default=0)
    active_s = models.FloatField(default=0.0)  # seconds with a request in flight
    peak_in_flight = models.PositiveIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["deployment", "minute"], name="demand_per_minute")]
        indexes = [models.Index(fields=["minute"])]
