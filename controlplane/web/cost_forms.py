"""Forms of the cost pages: teams and prices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms

from controlplane.fleet.models import Deployment, Node
from controlplane.teams.models import DeploymentTeam, Team
from controlplane.teams.services import MOST_GPUS

REASON = "Kept in the activity trail."


class TeamForm(forms.Form):
    """A new team, or all there is to change of one."""

    name = forms.CharField(max_length=120)
    budget_soft = forms.DecimalField(
        required=False, min_value=0, max_digits=14, decimal_places=2, label="Soft limit a month",
        help_text="Reached, an alert fires. Empty: none.",
    )  # fmt: skip
    budget_hard = forms.DecimalField(
        required=False, min_value=0, max_digits=14, decimal_places=2, label="Hard limit a month",
        help_text="Reached, the gateway refuses its keys until the month is over. Empty: none.",
    )  # fmt: skip
    pool_floor = forms.IntegerField(
        required=False, min_value=0, max_value=MOST_GPUS, label="Floor in the pool, GPUs",
        help_text="So many are there for its deployments when they are asked for. Empty: none.",
    )  # fmt: skip
    deployments = forms.MultipleChoiceField(
        required=False, widget=forms.CheckboxSelectMultiple,
        help_text="It pays for the time that their engines are up and no request is at them.",
    )  # fmt: skip
    reason = forms.CharField(required=False, max_length=500, help_text=REASON)

    def __init__(self, *args: Any, team: Team | None = None, **kwargs: Any) -> None:
        if team is not None:
            mine = list(team.deployments.values_list("deployment__name", flat=True))
            limits = {
                "budget_soft": team.budget_soft,
                "budget_hard": team.budget_hard,
                "pool_floor": team.pool_floor or None,
            }
            kwargs["initial"] = {"name": team.name, **limits, "deployments": mine}
        super().__init__(*args, **kwargs)
        if team is None:
            del self.fields["reason"]
        others = DeploymentTeam.objects.exclude(team=team).values("deployment")
        free = Deployment.objects.exclude(pk__in=others).values_list("name", flat=True)
        self.fields["deployments"].choices = [(name, name) for name in free]

    def clean_pool_floor(self) -> int:
        return self.cleaned_data["pool_floor"] or 0


class PriceForm(forms.Form):
    nodes = forms.MultipleChoiceField(required=False)
    all_nodes = forms.BooleanField(required=False, label="All nodes")
    per_gpu_hour = forms.DecimalField(
        required=False, min_value=0, max_digits=12, decimal_places=4, label="Price of an hour of each GPU",
        help_text="0 is free; empty: it is not known.",
    )  # fmt: skip
    since = forms.DateTimeField(
        required=False, label="From then on, UTC",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": 3600}, format="%Y-%m-%dT%H:00"),
        help_text="Taken to the hour; empty: this hour. Hours counted since then cost so much too.",
    )  # fmt: skip
    reason = forms.CharField(required=False, max_length=500, help_text=REASON)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["nodes"].choices = [(name, name) for name in Node.objects.values_list("name", flat=True)]

    def clean_since(self) -> datetime | None:
        """As it was typed, in UTC, whatever the zone of the pages is."""
        given = self.cleaned_data["since"]
        return given and given.replace(tzinfo=UTC)

    def values(self) -> dict[str, Any]:
        """As the service takes them."""
        given = dict(self.cleaned_data)
        if given.pop("all_nodes"):
            given["nodes"] = [name for name, _ in self.fields["nodes"].choices]
        return given
