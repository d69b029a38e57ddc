"""What dedicated deployments should have, and plans to get there. Each class names its only writer."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models import Change, Deployment
from controlplane.fleet.models.serving import Role

CHEAPER = 0.95  # of what it costs now: less of a difference between kinds of engines is noise


class ScalingPolicy(models.Model):
    """How plans are made, and when one is applied without a person: one row. Written by scaling.policy alone."""

    auto_apply = models.BooleanField(default=False)
    level = models.FloatField(default=0.95)  # how sure the forecast floor is of the rate
    lengths_level = models.FloatField(default=0.95)  # and of the mean lengths of the next hour's prompts and answers
    auto_switch = models.BooleanField(default=False)  # between aggregated and disaggregated, by itself, too
    quiet_s = models.PositiveIntegerField(default=600)  # for so long fewer engines must do before one goes
    moves_per_hour = models.PositiveIntegerField(default=6)
    quiet_hours = models.JSONField(default=list)  # lines, as domain.holding.parse_hours reads them
    time_zone = models.CharField(max_length=64, default="UTC")  # in which quiet hours are meant
    most_gpus = models.PositiveIntegerField(null=True)  # of dedicated engines together
    price_per_hour = models.FloatField(null=True)  # of the same
    version = models.PositiveIntegerField(default=0)  # 0: never changed

    def __str__(self) -> str:
        return "scaling policy"


class LaneLook(models.Model):
    """One role of one dedicated deployment at the last look: the newest alone. Written by scaling.proposing."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="lanes")
    role = models.CharField(max_length=12, choices=Role.choices)
    at = models.DateTimeField()
    count = models.PositiveIntegerField()  # engines assigned, without those that are lost
    ready = models.PositiveIntegerField()
    lost = models.PositiveIntegerField(default=0)  # engines that will not come back by themselves
    wanted = models.PositiveIntegerField()
    kind = models.CharField(max_length=8)  # domain.scaling.Kind
    why = models.CharField(max_length=255)
    short = models.PositiveIntegerField(default=0)  # engines for which there is no partition
    fewer_since = models.DateTimeField(null=True)  # fewer engines would have done since
    # by the forecast; null: not known, and floor_why says why not
    floor = models.PositiveIntegerField(null=True)
    floor_why = models.CharField(max_length=255, blank=True)
    floor_at = models.DateTimeField(null=True)
    # aggregated against disaggregated, whichever it is not: kinds.Other
    other = models.CharField(max_length=255, blank=True)
    other_ratio = models.FloatField(null=True)
    other_at = models.DateTimeField(null=True)
    other_rate = models.FloatField(null=True)  # requests a second that it was compared for
    other_counts = models.JSONField(null=True)  # its engines by role; null: none to switch to
    other_basis = models.CharField(max_length=100, blank=True)  # the kind and the aims that it was compared for
    other_missed = models.BooleanField(default=False)  # no number of the engines that there are keeps the objectives
    other_since = models.DateTimeField(null=True)  # clearly cheaper, or alone in keeping the objectives, since
    rate_now = models.FloatField(null=True)  # requests a second
    rate_coming = models.FloatField(null=True)

    class Meta:
        ordering = ["deployment__name", "role"]
        constraints = [models.UniqueConstraint(fields=["deployment", "role"], name="look_per_lane")]

    def __str__(self) -> str:
        return f"{self.deployment} {self.role}"

    @property
    def other_is_better(self) -> bool:
        """Cheaper, or the only one that keeps the objectives, by what was measured."""
        if self.other_ratio is None:
            return self.other_counts is not None
        return self.other_ratio <= CHEAPER


class ScalingPlan(models.Model):
    """Moves that were proposed. Made by scaling.proposing; decided by scaling.plans."""

    class State(models.TextChoices):
        """open -> applied | dismissed | superseded. Of open ones there is one at most."""

        OPEN = "open"
        APPLIED = "applied"
        DISMISSED = "dismissed"
        SUPERSEDED = "superseded"

    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN, db_index=True)
    made_at = models.DateTimeField()
    seen_at = models.DateTimeField()  # the last look that came to the same moves
    version = models.BigIntegerField()  # of the fleet that it was made on
    moves = models.JSONField()  # [{partition, name, deployment, role, why}]; deployment and role null: released
    pool = models.JSONField(default=list)  # [{partition, name, pool, why}]: set aside for the pool, or taken back
    preview = models.JSONField()  # as fleet.services.preview_change told it at `seen_at`
    held_back = models.JSONField(default=list)  # why nobody but a person applies it; []: nothing kept it
    change = models.ForeignKey(Change, null=True, on_delete=models.SET_NULL, related_name="plans")
    automatic = models.BooleanField(default=False)  # applied by itself
    switches = models.BooleanField(default=False)  # between aggregated and disaggregated engines
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)
    reason = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["state"], condition=models.Q(state="open"), name="one_open_scaling_plan")
        ]

    def __str__(self) -> str:
        return f"scaling plan {self.pk}"
