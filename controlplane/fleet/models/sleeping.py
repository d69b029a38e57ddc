"""Engines that sleep in slots of the pool."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models.serving import Deployment, Partition


class Sleeper(models.Model):
    """A model whose engine may stay asleep in a slot, beside the one that is awake there."""

    # services
    partition = models.ForeignKey(Partition, on_delete=models.CASCADE, related_name="sleepers")
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="sleepers")
    engine_key = models.CharField(max_length=64)  # of the engine: woken, it has it still
    left_at = models.DateTimeField()  # it left the slot to another model, or to nobody
    # sleeping: as its agent reports it
    asleep_since = models.DateTimeField(null=True)  # null: not asleep yet, or not any more
    level = models.PositiveSmallIntegerField(default=0)  # 1: weights in host memory; 2: read again on waking
    host_bytes = models.BigIntegerField(default=0)
    gpu_bytes = models.BigIntegerField(default=0)  # what it still holds of the slot's GPUs

    class Meta:
        ordering = ["-left_at", "pk"]
        constraints = [models.UniqueConstraint(fields=["partition", "deployment"], name="sleeps_once_in_a_slot")]

    def __str__(self) -> str:
        return f"{self.deployment.name} in {self.partition}"
