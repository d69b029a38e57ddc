"""What people decided, in order, and what is still being carried out."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from controlplane.fleet.models.nodes import Node


class FleetVersion(models.Model):
    """One row: counts the changes that people and plans make to the fleet. Its lock orders them."""

    number = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"version {self.number}"


class Revision(models.Model):
    """One change of intent: which version it made, and what it touched. A plan made before it may be stale."""

    number = models.BigIntegerField(unique=True)
    event = models.OneToOneField("audit.AuditEvent", on_delete=models.PROTECT, related_name="revision")
    nodes = models.JSONField(default=list)
    deployments = models.JSONField(default=list)
    change = models.ForeignKey("Change", null=True, on_delete=models.SET_NULL, related_name="revisions")

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"revision {self.number}"


class Change(models.Model):
    """Several moves that belong together. The only writer is fleet.services."""

    class State(models.TextChoices):
        """running -> done | stopped | rolled_back; stopped -> running, forwards (resume) or backwards (roll back)."""

        RUNNING = "running"
        STOPPED = "stopped"
        DONE = "done"
        ROLLED_BACK = "rolled_back"

    class Kind(models.TextChoices):
        CHANGE = "change"
        UNDO = "undo"
        DRAIN = "drain"

    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.CHANGE)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING, db_index=True)
    backwards = models.BooleanField(default=False)  # its steps lead back to what was before
    plan = models.JSONField(default=dict)  # the preview it was applied with
    moves = models.JSONField(default=list)  # those of the preview that change something, with before and after
    steps = models.JSONField(default=list)  # what was and is done, newest last; see services.steps
    reason = models.TextField(blank=True)
    force = models.BooleanField(default=False)
    version = models.BigIntegerField()  # that it was planned on
    message = models.TextField(blank=True)  # why it waits or stopped
    held_since = models.DateTimeField(null=True)  # since when it could take no step
    undoes = models.OneToOneField("self", null=True, on_delete=models.PROTECT, related_name="undone_by")
    node = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="+")  # drained at the end
    node_drain_s = models.FloatField(null=True)
    # who, for the audit events of the steps
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    source = models.CharField(max_length=8)
    request_id = models.CharField(max_length=64, blank=True)
    address = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"change {self.pk}"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.RUNNING, self.State.STOPPED)


class BrakeRow(models.Model):
    """One row: what was last found of nodes that fell silent together, so that all processes agree on it."""

    # brake
    on = models.BooleanField(default=False)
    since = models.DateTimeField(null=True)  # when it came on
    looked_at = models.DateTimeField(null=True)
    memory = models.JSONField(default=dict)  # domain.quorum.Memory
    # services
    released_since = models.DateTimeField(null=True)  # the `since` that was released; another loss is not
    released_until = models.DateTimeField(null=True)
    released_by = models.CharField(max_length=150, blank=True)
    release_reason = models.TextField(blank=True)

    def __str__(self) -> str:
        return "the brake"
