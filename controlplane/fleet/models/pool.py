"""What is asked of the pool, and what came of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from controlplane.fleet.models.serving import Deployment, Partition


class Activation(models.Model):
    """One model that was asked for while nothing served it, or not enough. The only writer is fleet.services.pool."""

    class State(models.TextChoices):
        """waiting -> starting -> ready | failed; waiting -> given_up."""

        WAITING = "waiting", "Waiting for a slot"
        STARTING = "starting", "Starting"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"
        GIVEN_UP = "given_up", "Given up"

    class Cause(models.TextChoices):
        REQUEST = "request", "A request"
        AHEAD = "ahead", "Ahead of a request"
        OVERFLOW = "overflow", "Overflow of a dedicated deployment"

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="activations")
    shape = models.CharField(
        max_length=10, choices=Deployment.PoolShape.choices, default=Deployment.PoolShape.AGGREGATED
    )  # as it was placed
    # Of a pair the prefill slot, and `partner` the decode slot; of one that failed, `partition` is the one at fault.
    partition = models.ForeignKey(Partition, null=True, on_delete=models.SET_NULL, related_name="+")
    partner = models.ForeignKey(Partition, null=True, on_delete=models.SET_NULL, related_name="+")
    slot = models.CharField(max_length=255, blank=True)  # node/partition, which it outlives; of a pair both
    evicted = models.CharField(max_length=255, blank=True)  # the deployments that left for it
    cause = models.CharField(max_length=8, choices=Cause.choices)
    state = models.CharField(max_length=8, choices=State.choices)
    reason = models.CharField(max_length=255, blank=True)  # why this slot, or why none
    message = models.CharField(max_length=255, blank=True)  # why it failed, or what became of it later
    waiters = models.PositiveIntegerField(default=0)  # requests held for it at once, at most
    asked_at = models.DateTimeField(db_index=True)
    wanted_at = models.DateTimeField()  # when somebody was last known to wait
    placed_at = models.DateTimeField(null=True)  # a slot was given to it
    ended_at = models.DateTimeField(null=True)  # ready, failed or given up
    broke_at = models.DateTimeField(null=True)  # ready, but its engine could not be kept up afterwards
    woken = models.BooleanField(default=False)  # its engine slept in the slot: a wake, not a start
    came_at = models.DateTimeField(null=True)  # woken ahead of requests: when one was first known to have come

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment"], condition=Q(state__in=["waiting", "starting"]), name="one_open_activation"
            )
        ]
        indexes = [models.Index(fields=["state", "ended_at"])]

    def __str__(self) -> str:
        return f"activation {self.pk} of {self.deployment.name}"


class PoolAim(models.Model):
    """One row: what the planner wants of the pool. Written by fleet.services.pool.aim, when it changes."""

    keep_alive_s = models.PositiveIntegerField()  # of deployments that have none of their own
    slots = models.PositiveIntegerField(null=True)  # in use or free, to be held; null: not known
    by_gpus = models.JSONField(default=dict)  # the same by the GPUs of a slot, as text; empty: all of one
    reason = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField()  # of the last change

    def __str__(self) -> str:
        return "what is wanted of the pool"

    @property
    def sizes(self) -> str:
        """120 of 1 GPU, 14 of 2; "" where all are of one."""
        found = sorted((int(gpus), slots) for gpus, slots in self.by_gpus.items() if slots)
        return ", ".join(f"{slots} of {gpus}{' GPU' if gpus == 1 else ''}" for gpus, slots in found)


class PoolUse(models.Model):
    """What one gateway has in flight of a pooled deployment, or in the slots that overflow of a dedicated one has, and
    when that last changed. Names, not keys: it is written by the gateway, in fleet.pool_use, once a second at most."""

    gateway = models.CharField(max_length=255)
    deployment = models.CharField(max_length=120)
    in_flight = models.PositiveIntegerField(default=0)
    last_at = models.DateTimeField()  # a request came or ended

    class Meta:
        constraints = [models.UniqueConstraint(fields=["gateway", "deployment"], name="pool_use_once")]

    def __str__(self) -> str:
        return f"{self.deployment} at {self.gateway}"


class PoolHint(models.Model):
    """What the planner learned of a model's habits. Written by fleet.pool_habits; a name, as it learns of models
    that are no deployments yet, too."""

    deployment = models.CharField(max_length=120, unique=True)
    rates = models.JSONField(null=True)  # askings per idle second by idle age, domain.recurrence.EDGES_S; null: unknown
    idle_since = models.DateTimeField(null=True)  # by what is on record
    period_s = models.FloatField(null=True)  # it is asked for by the clock, so often; null: it is not
    last_at = models.DateTimeField(null=True)  # when it should have been asked for last, by that clock
    spread_s = models.FloatField(null=True)  # give or take
    kept = models.FloatField(null=True)  # of the times that it should have been asked for, the share that it was
    keep_alive_s = models.FloatField(null=True)  # best for its own idle times; null: the usual one does as well
    keep_alive_why = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"habits of {self.deployment}"
