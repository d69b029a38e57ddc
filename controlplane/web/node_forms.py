"""Forms of the Nodes pages. See `forms`."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.conf import settings

_HOUR = 3600
_DAY = 86400


class Join(forms.Form):
    node_name = forms.CharField(
        required=False,
        max_length=63,
        label="Node name",
        help_text="Empty: the host's own name. An existing node's name lets that node join again.",
        widget=forms.TextInput(attrs={"spellcheck": "false", "autofocus": True}),
    )
    ttl_s = forms.TypedChoiceField(
        label="Valid for",
        coerce=int,
        choices=[
            (900, "15 minutes"),
            (_HOUR, "1 hour"),
            (12 * _HOUR, "12 hours"),
            (_DAY, "1 day"),
            (7 * _DAY, "7 days"),
        ],
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = self.fields["ttl_s"].choices
        default = settings.JOIN_TOKEN_TTL_S
        if default not in dict(choices):
            self.fields["ttl_s"].choices = [*choices, (default, f"{default} s")]
        self.fields["ttl_s"].initial = default


class Labels(forms.Form):
    labels = forms.CharField(
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
        help_text="One key=value a line, for example rack=a.",
    )

    def clean_labels(self) -> dict[str, str]:
        pairs = [line.strip().partition("=") for line in self.cleaned_data["labels"].splitlines() if line.strip()]
        if bad := [
            key for key, equals, _ in pairs if not equals or not re.fullmatch(r"[A-Za-z0-9._/-]{1,63}", key.strip())
        ]:
            raise forms.ValidationError(f"Not a key=value pair: {bad[0]}.")
        return {key.strip(): value.strip()[:63] for key, _, value in pairs}
