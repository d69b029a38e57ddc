"""What GPUs were measured to be."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from controlplane.fleet.models.serving import Gpu


class GpuQualification(models.Model):
    """One measurement of one GPU. The newest one that is done is what is known of it."""

    class State(models.TextChoices):
        """asked -> waiting <-> running -> done | failed, as the agent says; any of the first three -> withdrawn."""

        ASKED = "asked"  # the agent has not said anything of it yet
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"  # nothing could be measured
        WITHDRAWN = "withdrawn"

    class Cause(models.TextChoices):
        JOIN = "join"
        DEMAND = "demand"
        SCHEDULE = "schedule"

    OPEN = (State.ASKED, State.WAITING, State.RUNNING)

    # services
    gpu = models.ForeignKey(Gpu, on_delete=models.CASCADE, related_name="qualifications")
    cause = models.CharField(max_length=8, choices=Cause.choices)
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField(auto_now_add=True)
    soak_s = models.FloatField()
    accepted_by = models.CharField(max_length=150, blank=True)  # "" = what was found speaks against the GPU
    accepted_at = models.DateTimeField(null=True)
    accept_reason = models.TextField(blank=True)
    # qualified
    state = models.CharField(max_length=9, choices=State.choices, default=State.ASKED)  # services: withdrawn
    message = models.CharField(max_length=256, blank=True)  # why it waits, or failed
    ended_at = models.DateTimeField(null=True)
    result = models.JSONField(null=True)  # workers.qualification.Qualification, once it is done
    driver = models.CharField(max_length=255, blank=True)
    findings = models.JSONField(default=list)  # domain.qualification.Finding as dicts

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["gpu"], condition=Q(state__in=("asked", "waiting", "running")), name="one_open_qualification"
            ),
        ]

    def __str__(self) -> str:
        return f"qualification {self.pk} of {self.gpu}"

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN
