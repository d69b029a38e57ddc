"""Forms parse what people send. What is lawful is decided by the services, which say so in their own words."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from django import forms

from controlplane.domain.plans import PLANS
from controlplane.fleet import services
from controlplane.fleet.models import Deployment, RegisteredModel, Role


class Lines(forms.CharField):
    """Several values: one a line, or as a shell would split them."""

    def __init__(self, *, rows: int = 2, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": rows, "spellcheck": "false", "class": "mono"})
        super().__init__(required=False, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        """One flag with its value on a line."""
        if not isinstance(value, (list, tuple)):
            return value
        lines: list[str] = []
        for part in value:
            follows = lines and lines[-1].startswith("-") and " " not in lines[-1] and not part.startswith("-")
            lines[-1:] = [f"{lines[-1]} {shlex.quote(part)}"] if follows else [*lines[-1:], shlex.quote(part)]
        return "\n".join(lines)

    def to_python(self, value: Any) -> list[str]:
        try:
            return shlex.split(super().to_python(value) or "")
        except ValueError as error:
            raise forms.ValidationError(f"Cannot be split into arguments: {error}.") from error


class Reason(forms.Form):
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")


class Drain(forms.Form):
    deadline_s = forms.FloatField(
        required=False, min_value=0, max_value=services.MAX_DEADLINE_S, label="Deadline, seconds",
        help_text="Requests that still run then are cut off. Empty: as long as each deployment allows.",
    )  # fmt: skip
    move = forms.BooleanField(required=False, label="Move its engines to other nodes first")
    reason = forms.CharField(required=False, max_length=500, help_text="Kept in the activity trail.")
    force = forms.BooleanField(required=False)
    version = forms.IntegerField(required=False, min_value=0)
    confirm = forms.CharField(required=False, max_length=63)


class ReleaseBrake(forms.Form):
    minutes = forms.IntegerField(min_value=1, max_value=24 * 60, initial=30, help_text="Then it holds again by itself.")
    reason = forms.CharField(max_length=500, help_text="What you found. Kept in the activity trail.")


class Confirm(forms.Form):
    """For what cannot be undone: the name, typed, and a reason."""

    confirm = forms.CharField(label="Type the name to confirm")
    reason = forms.CharField(max_length=500, help_text="Kept in the activity trail.")

    def __init__(self, *args: Any, expected: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["confirm"].widget.attrs.update(
            {"autocomplete": "off", "data-confirm": expected, "placeholder": expected}
        )

    def clean_confirm(self) -> str:
        if self.cleaned_data["confirm"] != self.expected:
            raise forms.ValidationError(f"Nothing was changed: this is not {self.expected}.")
        return self.cleaned_data["confirm"]


class Register(forms.Form):
    source = forms.CharField(
        max_length=1024,
        label="Folder or repository",
        help_text="Full path of a folder that is the same on the nodes as here, or a Hugging Face repository id.",
        widget=forms.TextInput(
            attrs={"placeholder": "/models/my-model or organisation/model", "spellcheck": "false", "autofocus": True}
        ),
    )
    name = forms.CharField(
        max_length=120, help_text="What people call it here.", widget=forms.TextInput(attrs={"spellcheck": "false"})
    )
    revision = forms.CharField(
        required=False, max_length=64, help_text="Branch, tag or commit of a repository; empty for its main one."
    )


class Fit(forms.Form):
    """What the memory check assumes."""

    tp = forms.TypedChoiceField(
        label="GPUs per replica", coerce=int, choices=[(n, str(n)) for n in (1, 2, 4, 8, 16)], initial=1
    )
    concurrency = forms.IntegerField(label="Requests at once", min_value=1, max_value=4096, initial=8)
    context_tokens = forms.IntegerField(
        label="Tokens per request",
        min_value=1,
        max_value=10_000_000,
        required=False,
        help_text="Empty: the model's whole context.",
    )


class Serve(forms.Form):
    """A deployment. Its fields are the keyword arguments of the service."""

    name = forms.CharField(
        max_length=120,
        label="Served name",
        help_text='What clients put in "model".',
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    model_id = forms.TypedChoiceField(label="Model", coerce=int)
    aliases = Lines(label="Other served names", rows=1, help_text="Separated by spaces.")
    engine_args = Lines(
        label="Engine arguments, all roles",
        help_text="As on the vllm command line, for example --max-model-len 4096. "
        "Host, port, keys, names and KV transfer are set by the agent. "
        "Arguments that run code or open files of nodes are for admins.",
    )
    prefill_args = Lines(label="Prefill only")
    decode_args = Lines(label="Decode only")
    mode = forms.ChoiceField(
        choices=[("dedicated", "dedicated: partitions of its own"), ("pooled", "pooled: woken when it is asked for")],
        required=False,
        help_text="A pooled model takes slots of the pool while it is in use.",
    )
    pool_shape = forms.ChoiceField(
        choices=[("aggregated", "aggregated: one engine, one slot"), ("pair", "pair: prefill and decode, two slots")],
        required=False,
        label="Woken in the pool as",
        help_text="Pooled models only. A change takes effect the next time it is woken.",
    )
    overflow = forms.BooleanField(
        required=False,
        label="Overflow into the pool",
        help_text="Dedicated models only: when its engines are full, or none is ready, one more is started in a slot "
        "that pooled models can do without. An engine is full at its limit of requests; without one it never is.",
    )
    keep_alive_s = forms.IntegerField(
        min_value=0,
        required=False,
        label="Keep-alive, seconds",
        help_text="In the pool active for so long after its last request. Empty: as learned, or as configured.",
    )
    priority = forms.IntegerField(
        min_value=-100,
        max_value=100,
        initial=0,
        required=False,
        help_text="In the pool it takes no slot of a model with a higher priority.",
    )
    kv_connector = forms.ChoiceField(choices=[("NixlConnector", "NIXL")], label="KV connector")
    min_transfer_tokens = forms.IntegerField(
        min_value=0,
        initial=0,
        label="Shortest prompt to transfer",
        help_text="Tokens; shorter prompts go straight to decode.",
    )
    convertible = forms.BooleanField(
        required=False,
        label="Convertible",
        help_text="One set of arguments for all roles: a flip never restarts an engine.",
    )
    prefill_max_requests = forms.IntegerField(
        min_value=1,
        required=False,
        label="Requests per prefill engine",
        help_text="At most, of one gateway; others wait in line. Empty: no limit.",
    )
    decode_max_requests = forms.IntegerField(
        min_value=1, required=False, label="Requests per decode engine", help_text="Empty: no limit."
    )
    aggregated_max_requests = forms.IntegerField(
        min_value=1, required=False, label="Requests per aggregated engine", help_text="Empty: no limit."
    )
    drain_s = forms.IntegerField(
        min_value=0,
        max_value=3600,
        initial=120,
        label="Drain deadline",
        help_text="Seconds that running requests get before an engine stops.",
    )
    slo_ttft_ms = forms.IntegerField(min_value=1, required=False, label="TTFT objective, ms")
    slo_itl_ms = forms.IntegerField(min_value=1, required=False, label="ITL objective, ms")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model_id"].choices = list(RegisteredModel.objects.values_list("pk", "name"))
        for role in Role.values:
            self.fields[f"min_{role}"] = forms.IntegerField(min_value=0, initial=0, label=f"{role} min")
            self.fields[f"max_{role}"] = forms.IntegerField(min_value=0, required=False, label=f"{role} max")
            self.fields[f"max_{role}"].widget.attrs["aria-label"] = f"At most {role}"
        for choice in ("mode", "pool_shape"):
            if self.data and not self.data.get(choice):
                self.fields.pop(choice)  # the service's default stands

    def clean_priority(self) -> int:
        return self.cleaned_data["priority"] or 0

    def bounds(self) -> list[tuple[str, Any, Any]]:
        return [(role, self[f"min_{role}"], self[f"max_{role}"]) for role in Role.values]


class Assign(Reason):
    deployment = forms.TypedChoiceField(coerce=int)
    role = forms.ChoiceField(choices=Role.choices)
    force = forms.BooleanField(required=False, label="Go on in spite of the problems above")
    expected_generation = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["deployment"].choices = list(Deployment.objects.values_list("pk", "name"))


class Release(Reason):
    expected_generation = forms.IntegerField(required=False, widget=forms.HiddenInput)


class Split(forms.Form):
    """A preset, or groups of GPU indices such as `0-3; 4 5; 6; 7`."""

    preset = forms.CharField(required=False, max_length=12)
    groups = forms.CharField(
        required=False,
        max_length=500,
        label="Own groups",
        widget=forms.TextInput(attrs={"placeholder": "0-3; 4-5; 6; 7", "spellcheck": "false"}),
        help_text="GPUs of each partition, separated by semicolons.",
    )

    def clean_groups(self) -> list[list[int]] | None:
        text = self.cleaned_data["groups"].strip()
        return [indexes(part) for part in text.strip("; ").split(";")] if text else None

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        data["preset"] = None if data.get("groups") else data.get("preset") or None
        return data


class ApplyPlan(Reason):
    """A ready-made split with its roles, for one deployment."""

    plan = forms.ChoiceField(choices=lambda: [(plan.key, f"{plan.key}: {plan.title}") for plan in PLANS.values()])
    deployment = forms.TypedChoiceField(coerce=int)
    force = forms.BooleanField(required=False, label="Go on in spite of problems that allow it")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["deployment"].choices = list(Deployment.objects.values_list("pk", "name"))


class NewPartition(forms.Form):
    name = forms.CharField(max_length=40, widget=forms.TextInput(attrs={"spellcheck": "false", "placeholder": "p4"}))
    gpus = forms.CharField(max_length=200, label="GPUs", widget=forms.TextInput(attrs={"placeholder": "4-7"}))

    def clean_gpus(self) -> list[int]:
        return indexes(self.cleaned_data["gpus"])


def indexes(text: str) -> list[int]:
    """ "0-2, 5" -> [0, 1, 2, 5]."""
    found: list[int] = []
    for part in re.split(r"[\s,]+", text.strip()):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if match is None:
            raise forms.ValidationError(f"Not GPU numbers: {json.dumps(text[:40])}. Write them as 0-3 or 0 1 2 3.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found
