"""Forms of the alert pages: rules in the units of people, silences, targets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils import timezone

from controlplane.alerts.models import SEVERITY_CHOICES, AlertRule, AlertTarget
from controlplane.domain.alert_rules import GIB, KINDS, Kind

_HOURS = [(1, "1 hour"), (4, "4 hours"), (12, "12 hours"), (24, "a day"), (72, "3 days"), (168, "a week")]


def shown_unit(kind: Kind) -> tuple[float, str]:
    """What a threshold is divided by to be read, and its unit then."""
    if kind.unit == "bytes":
        return GIB, "GiB"
    return (1.0, kind.unit) if kind.unit or kind.fixed else (0.01, "%")


def words_of(rule: AlertRule) -> str:
    """The limits in words: more than 87 °C for 1 min."""
    kind, (scale, unit) = rule.kind, shown_unit(rule.kind)
    span = _span(rule.for_s)
    if kind.fixed:
        return span.capitalize()
    side, shown = "At least" if kind.above else "At most", rule.threshold / scale
    one = unit[:-1] if shown == 1 and len(unit) > 1 else unit  # 1 error, 2 errors
    return f"{side} {shown:g}{one if one == '%' else f' {one}'}, {span}"


class LabelsField(forms.CharField):
    """rack=b12, zone=a as a dict."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(f"{key}={text}" for key, text in sorted(value.items())) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> dict[str, str]:
        found = {}
        for label in filter(None, (part.strip() for part in (super().to_python(value) or "").split(","))):
            name, equals, text = label.partition("=")
            if not name.strip() or not equals:
                raise forms.ValidationError(f"{label} is no label. Write name=value, separated by commas.")
            found[name.strip()] = text.strip()
        return found


class Acknowledge(forms.Form):
    note = forms.CharField(required=False, max_length=500, help_text="What you do about it. Others see it.")


class Silence(forms.Form):
    rule = forms.ChoiceField(
        required=False, choices=[("", "any"), *((kind.key, kind.title) for kind in KINDS.values())]
    )
    subject = forms.CharField(required=False, max_length=255, help_text="Its name; * stands for anything. Empty: any.")
    labels = LabelsField(
        required=False, help_text="All of them, as rack=b12, deployment=chat. Empty: any.", max_length=2000
    )
    hours = forms.TypedChoiceField(coerce=int, choices=_HOURS, initial=4, label="For")
    reason = forms.CharField(max_length=500, help_text="Kept in the activity trail.")

    def values(self) -> dict[str, Any]:
        """As the service takes them."""
        given = dict(self.cleaned_data)
        until = timezone.now() + timedelta(hours=given.pop("hours"))
        return {**given, "until": until}


def _plain(value: float) -> float | int:
    """60 and not 60.0, as people write it."""
    return int(value) if value.is_integer() else value


class Rule(forms.Form):
    enabled = forms.BooleanField(required=False, label="Switched on")
    threshold = forms.FloatField(min_value=0)
    for_s = forms.FloatField(min_value=0, label="For, seconds", help_text="So long it must be so before it fires.")
    severity = forms.ChoiceField(choices=SEVERITY_CHOICES)
    labels = LabelsField(
        required=False, max_length=2000, label="Only what has the labels", help_text="As rack=b12. Empty: everything."
    )
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")

    def __init__(self, *args: Any, rule: AlertRule, **kwargs: Any) -> None:
        self._scale, unit = shown_unit(rule.kind)
        shown = {name: getattr(rule, name) for name in ("enabled", "severity", "labels")}
        limits = {"for_s": _plain(rule.for_s), "threshold": _plain(rule.threshold / self._scale)}
        super().__init__(*args, initial=shown | limits, **kwargs)
        side = "More than" if rule.kind.above else "Less than"
        self.fields["threshold"].label = f"{side}, {unit}" if unit else side
        if rule.kind.fixed:
            del self.fields["threshold"]

    def values(self) -> dict[str, Any]:
        given = dict(self.cleaned_data)
        if "threshold" in given:
            given["threshold"] *= self._scale
        return given


class NewTarget(forms.Form):
    name = forms.CharField(max_length=120)
    kind = forms.ChoiceField(
        choices=[("webhook", "Webhook"), ("slack", "Slack or what takes the same"), ("email", "E-mail"),
                 ("pagerduty", "PagerDuty or what takes the same")]
    )  # fmt: skip
    address = forms.CharField(
        required=False, max_length=2000, help_text="A URL; for e-mail, addresses with commas; PagerDuty needs none."
    )
    secret = forms.CharField(
        required=False, max_length=2000, widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="What signs a webhook, or PagerDuty's routing key.",
    )  # fmt: skip
    min_severity = forms.ChoiceField(choices=SEVERITY_CHOICES, initial="warning", label="From severity")

    def values(self) -> dict[str, Any]:
        return dict(self.cleaned_data)


class Target(NewTarget):
    enabled = forms.BooleanField(required=False, label="Switched on")

    def __init__(self, *args: Any, target: AlertTarget, **kwargs: Any) -> None:
        initial = {name: getattr(target, name) for name in ("name", "min_severity", "enabled")}
        super().__init__(*args, initial=initial, **kwargs)
        del self.fields["kind"]
        self.fields["address"].help_text = f"Empty: it stays {target.shown}."
        self.fields["secret"].help_text = "Empty: it stays as it is."

    def values(self) -> dict[str, Any]:
        """An empty address or secret was left as it is, since neither is ever shown."""
        return {name: value for name, value in self.cleaned_data.items() if value or name not in ("address", "secret")}


def _span(seconds: float) -> str:
    if not seconds:
        return "at once"
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= length and seconds % length == 0:
            return f"for {seconds // length:.0f} {unit}"
    return f"for {seconds:g} s"
