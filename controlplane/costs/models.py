"""Prices of nodes, and by the hour whose time their GPUs' was. Prices are written by costs.services, the rest by
costs.counting, but for UsageHour.cost, which a price that is set for hours past writes anew."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from controlplane.fleet.models import Node
from controlplane.gateway.models import ApiKey
from controlplane.teams.models import Team


class NodePrice(models.Model):
    """What an hour of one of the node's GPUs, or CPU slots, costs from then on, in settings.CURRENCY."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="prices")
    since = models.DateTimeField()  # on the hour
    per_gpu_hour = models.DecimalField(max_digits=12, decimal_places=4, null=True)  # None: not known from then on

    class Meta:
        ordering = ["node__name", "since"]
        constraints = [models.UniqueConstraint(fields=["node", "since"], name="price_per_node_and_hour")]

    def __str__(self) -> str:
        return f"{self.node.name} since {self.since:%Y-%m-%d %H:%M}"


class KnownEngine(models.Model):
    """A partition as it was last seen: its time is told by samples that outlive it."""

    partition_id = models.BigIntegerField(primary_key=True)
    node = models.CharField(max_length=63)
    name = models.CharField(max_length=40)
    gpus = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.node}/{self.name}"


class UsageHour(models.Model):
    """GPU-seconds of one node in one hour that are one's; names instead of foreign keys where rows outlive them."""

    class Share(models.TextChoices):
        """active: a request was there. reserved: an engine was up without one. idle: no engine was up."""

        ACTIVE = "active"
        RESERVED = "reserved"
        IDLE = "idle"

    hour = models.DateTimeField()  # its beginning
    node = models.CharField(max_length=63)
    share = models.CharField(max_length=8, choices=Share.choices)
    deployment = models.CharField(max_length=120, blank=True)  # "" = none, or one that is not known any more
    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="+")  # None: nobody's
    key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    gpu_s = models.FloatField()
    cost = models.DecimalField(max_digits=18, decimal_places=6, null=True)  # None: the node had no price
    # of the requests that ended in this hour, where they ended; a prompt's where it was prefilled
    requests = models.PositiveBigIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)
    # of those whose time until the first token is known: their GPU-seconds before and after it, and their tokens
    in_gpu_s = models.FloatField(default=0.0)
    out_gpu_s = models.FloatField(default=0.0)
    in_tokens = models.PositiveBigIntegerField(default=0)
    out_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "usage on record"
        indexes = [
            models.Index(fields=["hour"]),
            models.Index(fields=["team", "hour"]),
            models.Index(fields=["node", "hour"]),
        ]

    def __str__(self) -> str:
        return f"{self.gpu_s:.0f} {self.share} GPU-seconds of {self.node}, {self.hour:%Y-%m-%d %H:%M}"


class Counted(models.Model):
    """One row: all hours that begin before `upto` are counted for good; `at`: when counting last came to its end."""

    upto = models.DateTimeField()
    at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="one_row_of_counted")]

    def __str__(self) -> str:
        return f"counted until {self.upto:%Y-%m-%d %H:%M}"
