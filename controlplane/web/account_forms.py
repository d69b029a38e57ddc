"""Forms of the settings: users, API keys of the gateway, REST tokens."""

from __future__ import annotations

from typing import Any

from django import forms

from controlplane.audit.roles import ROLES
from controlplane.fleet.models import Deployment
from controlplane.teams.models import Team

_DAY = 86400
_SCOPES = {"read": "read", "operate": "read and operate", "admin": "everything"}


class NewUser(forms.Form):
    username = forms.CharField(
        max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    )
    role = forms.ChoiceField(choices=[(name, name) for name in ROLES])


class NewKey(forms.Form):
    name = forms.CharField(max_length=120, help_text="Who or what uses it.")
    deployments = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all of them, those to come included.",
    )
    requests_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=1_000_000, help_text="Empty: no limit."
    )
    team = forms.ChoiceField(required=False, help_text="Whose budget its use counts against.")
    expires_at = forms.DateField(
        required=False, label="Expires on", widget=forms.DateInput(attrs={"type": "date"}), help_text="Empty: never."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["deployments"].choices = [
            (name, name) for name in Deployment.objects.values_list("name", flat=True)
        ]
        teams = [(name, name) for name in Team.objects.values_list("name", flat=True)]
        self.fields["team"].choices = [("", "nobody's"), *teams]


class NewToken(forms.Form):
    """`lawful` are the scopes to choose from, the widest last."""

    name = forms.CharField(required=False, max_length=80, label="For", help_text="What it is for, to know it by.")
    scope = forms.ChoiceField(label="May", help_text="Never more than the account's own role.")
    ttl_s = forms.TypedChoiceField(
        label="Valid for",
        coerce=int,
        choices=[(_DAY, "1 day"), (30 * _DAY, "30 days"), (90 * _DAY, "90 days"), (365 * _DAY, "365 days")],
        initial=30 * _DAY,
    )

    def __init__(self, *args: Any, lawful: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = [(scope, _SCOPES[scope]) for scope in lawful]
        self.fields["scope"].initial = lawful[0] if lawful else None


class NewService(forms.Form):
    name = forms.CharField(max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}))
    role = forms.ChoiceField(choices=[(name, name) for name in ROLES])
    description = forms.CharField(required=False, max_length=200, help_text="What the program does, and whose it is.")


class Owners(forms.Form):
    """`lawful`: the names to choose from."""

    restricted = forms.TypedChoiceField(
        label="May be changed by",
        choices=[("", "every operator"), ("1", "its owners and admins only")],
        coerce=bool,
        empty_value=False,
        required=False,
        widget=forms.RadioSelect,
    )
    owners = forms.MultipleChoiceField(
        required=False, widget=forms.CheckboxSelectMultiple, help_text="Of operators. None chosen: admins alone."
    )
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")

    def __init__(self, *args: Any, lawful: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["owners"].choices = [(name, name) for name in lawful]
        self.initial["restricted"] = "1" if self.initial.get("restricted") else ""

    @property
    def names(self) -> list[str] | None:
        """What the service takes."""
        return self.cleaned_data["owners"] if self.cleaned_data["restricted"] else None
