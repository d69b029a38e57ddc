"""The form of the scaling policy, in the units of people."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms

from controlplane.domain.holding import parse_hours
from controlplane.domain.problems import DomainError
from controlplane.scaling import policy
from controlplane.scaling.models import ScalingPolicy

_LEVEL, _LENGTHS = policy.BOUNDS["level"], policy.BOUNDS["lengths_level"]
_QUIET, _MOVES = policy.BOUNDS["quiet_s"], policy.BOUNDS["moves_per_hour"]
_SHARES = ("level", "lengths_level")


class Policy(forms.Form):
    """Shares in per cent, quiet hours a line each."""

    expected_version = forms.IntegerField(widget=forms.HiddenInput, required=False, min_value=0)
    auto_apply = forms.BooleanField(
        required=False, label="Apply plans automatically",
        help_text="Those that nothing below holds back. After somebody undid one, none is for an hour.",
    )  # fmt: skip
    auto_switch = forms.BooleanField(
        required=False, label="Switch kinds of engines automatically, too",
        help_text="Between aggregated and disaggregated engines, where that has been clearly cheaper for two hours, or "
        "alone has kept the aims for half an hour.",
    )  # fmt: skip
    moves_per_hour = forms.IntegerField(
        min_value=int(_MOVES[0]), max_value=int(_MOVES[1]), label="Partitions moved in an hour",
        help_text="At most, automatically.",
    )  # fmt: skip
    most_gpus = forms.IntegerField(
        required=False, min_value=1, max_value=policy.LARGEST, label="GPUs of dedicated engines",
        help_text="Beyond so many a person says yes to more. Empty: any number.",
    )  # fmt: skip
    price_per_hour = forms.FloatField(
        required=False, min_value=0, max_value=policy.LARGEST, label="What they cost in an hour",
        help_text="Beyond it a person says yes to more, by the prices of the nodes. Empty: anything.",
    )  # fmt: skip
    quiet_hours = forms.CharField(
        required=False, max_length=10_000, widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        label="Quiet hours",
        help_text="In which nothing is applied automatically, days and hours, one a line: Mon-Fri 22:00-6:00.",
    )  # fmt: skip
    time_zone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(available_timezones())], label="Time zone of these hours"
    )
    level = forms.FloatField(
        min_value=100 * _LEVEL[0], max_value=100 * _LEVEL[1], label="Sure of the rate, %",
        help_text="Engines are held for the rate that so many of a hundred stretches of 10 minutes stay below.",
    )  # fmt: skip
    lengths_level = forms.FloatField(
        min_value=100 * _LENGTHS[0], max_value=100 * _LENGTHS[1], label="Sure of the lengths, %",
        help_text="And for prompts and answers as long as the mean that so many of a hundred hours stay below: more "
        "holds more engines. It counts from the next look on where the kinds of engines are compared, else within "
        "ten minutes.",
    )  # fmt: skip
    quiet_s = forms.IntegerField(
        min_value=int(_QUIET[0]), max_value=int(_QUIET[1]), label="Seconds before one goes",
        help_text="For so long one engine fewer must do. Of many too many after a burst the first go sooner.",
    )  # fmt: skip
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")

    def clean_quiet_hours(self) -> list[str]:
        try:
            return [one.hours for one in parse_hours(self.cleaned_data["quiet_hours"].splitlines())]
        except DomainError as error:
            raise forms.ValidationError(f"{error.problem.message} {error.problem.fix}") from error

    def values(self) -> dict[str, Any]:
        """As the service takes them."""
        given = {name: value for name, value in self.cleaned_data.items() if name in policy.FIELDS}
        return {**given, **{name: float(f"{given[name] / 100:.6g}") for name in _SHARES}}


def as_fields(row: ScalingPolicy) -> dict[str, Any]:
    """The policy as the form's fields show it."""
    return {
        **policy.shown(row),
        **{name: float(f"{100 * getattr(row, name):.6g}") for name in _SHARES},
        "quiet_hours": "\n".join(row.quiet_hours),
        "expected_version": row.version,
    }
