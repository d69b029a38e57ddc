"""What people say about a change: which moves, why, and that they mean it."""

from __future__ import annotations

from typing import Any

from django import forms

from controlplane.domain.rollout import Move
from controlplane.fleet.models import Deployment, Partition
from controlplane.web.drafts import IDLE
from workers.contract import Role


class ApplyChange(forms.Form):
    """What is said below a preview. `expected` is what has to be typed where something would stop serving."""

    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    reason = forms.CharField(
        max_length=500, error_messages={"required": "Say why: an on-call change always carries its reason."}
    )
    force = forms.BooleanField(required=False)
    confirm = forms.CharField(required=False, max_length=200)

    def __init__(self, *args: Any, expected: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected

    def clean_confirm(self) -> str:
        typed = self.cleaned_data["confirm"].strip()
        if typed != self.expected and self.expected:
            raise forms.ValidationError(f"This is not {self.expected}.")
        return typed


class AddMoves(forms.Form):
    """Partitions and where they shall go, as moves of a draft."""

    partition = forms.TypedMultipleChoiceField(coerce=int, error_messages={"required": "Tick at least one partition."})
    deployment = forms.TypedChoiceField(coerce=int, required=False, empty_value=None)
    role = forms.ChoiceField(error_messages={"required": "Choose a role, or unassigned."})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows = {row.pk: row for row in Partition.objects.select_related("node")}
        self.fields["partition"].choices = [(pk, str(row)) for pk, row in self._rows.items()]
        self.fields["deployment"].choices = list(Deployment.objects.values_list("pk", "name"))
        self.fields["role"].choices = [(name, name) for name in (*Role, IDLE)]

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if self.errors or data["role"] == IDLE or data["deployment"] is not None:
            return data
        homeless = [str(self._rows[pk]) for pk in data["partition"] if self._rows[pk].deployment_id is None]
        if homeless:
            raise forms.ValidationError(f"{', '.join(homeless)} runs nothing now: choose a deployment for it.")
        return data

    def moves(self) -> list[Move]:
        data = self.cleaned_data
        if data["role"] == IDLE:
            return [Move(pk, None, None) for pk in data["partition"]]
        home = data["deployment"]
        return [Move(pk, home or self._rows[pk].deployment_id, Role(data["role"])) for pk in data["partition"]]
