"""The form of the capacity policy, in the units of people."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms

from controlplane.domain.holding import parse_floors
from controlplane.domain.problems import DomainError
from controlplane.planning import policy
from controlplane.planning.models import CapacityPolicy


class Policy(forms.Form):
    """Shares in per cent, floors a line each."""

    expected_version = forms.IntegerField(widget=forms.HiddenInput, required=False, min_value=0)
    keep_alive_s = forms.IntegerField(
        min_value=policy.KEEP_ALIVE_S[0], max_value=policy.KEEP_ALIVE_S[1], label="Keep-alive, seconds",
        help_text="So long after its last request a model counts as active.",
    )  # fmt: skip
    aim = forms.ChoiceField(
        choices=[("risk", "At most a share of activations waits"), ("prices", "Whatever costs least by the prices")],
        label="Aim",
    )
    most_cold = forms.FloatField(
        min_value=100 * policy.MOST_COLD[0], max_value=100 * policy.MOST_COLD[1], label="May wait, %",
        help_text="Of all activations, those that find no slot ready.",
    )  # fmt: skip
    gpu_hour_price = forms.FloatField(
        required=False, min_value=0, label="Price of a GPU-hour",
        help_text="In any currency. A slot costs as many as it has GPUs.",
    )  # fmt: skip
    cold_price = forms.FloatField(
        required=False, min_value=0, label="Cost of a cold wait", help_text="What one activation that waits costs you."
    )
    floors = forms.CharField(
        required=False, max_length=10_000, widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        label="At least, by the clock",
        help_text="One a line, days, hours and slots: Mon 9:00-12:00 12, Mon-Fri 8:30-18:00 4, Sat,Sun 22:00-2:00 1. "
        "For one day alone its date: 2026-12-24 18:00-24:00 8.",
    )  # fmt: skip
    time_zone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(available_timezones())], label="Time zone of these hours"
    )
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")

    def clean_floors(self) -> list[str]:
        try:
            return [str(one) for one in parse_floors(self.cleaned_data["floors"].splitlines())]
        except DomainError as error:
            raise forms.ValidationError(f"{error.problem.message} {error.problem.fix}") from error

    def values(self) -> dict[str, Any]:
        """As the service takes them."""
        given = {name: value for name, value in self.cleaned_data.items() if name in policy.FIELDS}
        return {**given, "most_cold": given["most_cold"] / 100}


def as_fields(row: CapacityPolicy) -> dict[str, Any]:
    """The policy as the form's fields show it."""
    shown = policy.shown(row)
    percent = float(f"{100 * row.most_cold:.6g}")
    return {**shown, "most_cold": percent, "floors": "\n".join(row.floors), "expected_version": row.version}


class Import(forms.Form):
    trace = forms.FileField(
        label="File", max_length=255, help_text="CSV or JSON lines, packed with gzip or not, up to 3 MiB as it is sent."
    )
    shift = forms.ChoiceField(
        choices=[("none", "As they are: unix seconds"), ("now", "Moved by whole days, to end within the last day")],
        initial="none", label="Its times",
    )  # fmt: skip
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")
