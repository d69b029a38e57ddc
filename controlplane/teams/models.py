"""Teams and what is theirs. API keys name their team themselves (gateway.models). The only writer is teams.services,
but for TeamSpend."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models import Deployment

_MONEY = {"max_digits": 14, "decimal_places": 2, "null": True, "blank": True}


class Team(models.Model):
    """Those who share a budget. Money is in settings.CURRENCY, a month is a calendar month in UTC."""

    name = models.CharField(max_length=120, unique=True)
    budget_soft = models.DecimalField(**_MONEY)  # a month; past it somebody is told. None: no such limit
    budget_hard = models.DecimalField(**_MONEY)  # a month; past it the gateway refuses the team's keys
    pool_floor = models.PositiveIntegerField(default=0)  # GPUs of the pool that its deployments can always have
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class DeploymentTeam(models.Model):
    """The team that pays for a deployment's engines while no request is at them; they count in its floor."""

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, primary_key=True, related_name="+")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="deployments")

    def __str__(self) -> str:
        return f"{self.deployment} of {self.team}"


class TeamSpend(models.Model):
    """What a team's month has come to, as far as it is counted. The only writer is costs.counting."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, primary_key=True, related_name="spend")
    month = models.DateField()  # its first day
    spent = models.DecimalField(max_digits=18, decimal_places=6)
    unpriced_gpu_s = models.FloatField(default=0.0)  # on nodes without a price: what they cost is not known

    def __str__(self) -> str:
        return f"{self.team} in {self.month:%Y-%m}"
