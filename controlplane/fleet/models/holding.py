"""Which weights lie on which node."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models.nodes import Node


class HeldWeights(models.Model):
    """The weights of one model on one node, registered or not, as its agent reports them. Written by fleet.weights."""

    class State(models.TextChoices):
        """As the agent finds them: complete <-> partial."""

        COMPLETE = "complete"
        PARTIAL = "partial"

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="weights")
    source = models.CharField(max_length=1024)  # a folder there, or a repository id
    revisions = models.JSONField(default=list)  # commit and branches of a repository
    state = models.CharField(max_length=8, choices=State.choices)
    bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(null=True)  # when all are there; null: not known
    used_at = models.DateTimeField(null=True)  # when an engine was last seen to use them
    message = models.CharField(max_length=256, blank=True)

    class Meta:
        ordering = ["node", "source", "id"]
        indexes = [models.Index(fields=["source"], name="held_weights_source")]

    def __str__(self) -> str:
        return f"{self.source} on {self.node}"
