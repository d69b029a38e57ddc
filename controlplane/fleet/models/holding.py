"""Which weights lie on which node, and which shall."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models.nodes import Node
from controlplane.fleet.models.serving import RegisteredModel


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
    checked_at = models.DateTimeField(null=True)  # when the agent that fetched them compared them with the hub's sums

    class Meta:
        ordering = ["node", "source", "id"]
        indexes = [models.Index(fields=["source"], name="held_weights_source")]

    def __str__(self) -> str:
        return f"{self.source} on {self.node}"


class WantedWeights(models.Model):
    """The weights of this model shall lie on that node, ahead of their use. It stands until somebody takes it back."""

    class Cause(models.TextChoices):
        OPERATOR = "operator"
        FORECAST = "forecast"  # it is likely to be asked for; taken back when others are likelier

    class State(models.TextChoices):
        """As the agent says while they do not lie there: waiting -> fetching; fetching -> failed -> fetching again."""

        UNTOLD = ""  # it has said nothing of it, or they lie there
        WAITING = "waiting"
        FETCHING = "fetching"
        FAILED = "failed"

    # services
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="wanted_weights")
    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="wanted_on")
    cause = models.CharField(max_length=8, choices=Cause.choices)
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField(auto_now_add=True)
    chance = models.FloatField(null=True)  # of being asked for, where that is the cause
    # fetching
    state = models.CharField(max_length=8, choices=State.choices, default=State.UNTOLD, blank=True)
    bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(null=True)  # null: its agent does not know yet
    message = models.CharField(max_length=256, blank=True)  # why it failed

    class Meta:
        ordering = ["node", "id"]
        constraints = [models.UniqueConstraint(fields=["node", "model"], name="one_wish_a_node_and_model")]

    def __str__(self) -> str:
        return f"{self.model} on {self.node}"
