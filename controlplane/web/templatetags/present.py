"""Values as people read them. Unknown is a dash, never zero."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from controlplane.alerts.models import Alert
from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Activation
from controlplane.web.verbs import SAID, SAID_OF_CHANGES

register = template.Library()
UNKNOWN = "–"  # noqa: RUF001
_CHIPS = {
    "ready": "ok", "starting": "busy", "pending": "busy", "draining": "warn", "stopping": "warn", "cordoned": "warn",
    "drained": "warn", "silent": "warn", "crash_looping": "bad", "lost": "bad", "revoked": "bad", "never_seen": "idle",
}  # fmt: skip
_SEVERITIES = {"critical": "bad", "warning": "warn", "info": "busy"}
_WORDS = {"crash_looping": "crash-looping", "never_seen": "never seen"}
_PAGES = {
    "node": "web:node", "deployment": "web:deployment", "registeredmodel": "web:model", "change": "web:change",
    "alert": "web:alert", "scalingplan": "web:scaling-plan",
}  # fmt: skip


@register.filter
def binary(value: float | None) -> str:
    """Bytes with a unit."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@register.filter
def figure(value: float | None, unit: str = "") -> str:
    if value in (None, ""):
        return UNKNOWN
    text = f"{value:,.0f}" if abs(value) >= 10 or float(value).is_integer() else f"{value:,.1f}"
    return f"{text} {unit}".strip()


@register.filter
def rate(value: float | None) -> str:
    """Four digits, or all of a whole number."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@register.filter
def amount(value: float | None, unit: str) -> str:
    """A rate with its unit, of which a CPU takes a smaller one."""
    if value is not None and unit == "TFLOP/s" and value < 0.1:
        return f"{rate(1000 * value)} GFLOP/s"
    return UNKNOWN if value is None else f"{rate(value)} {unit}"


@register.filter
def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"


@register.filter
def drift(value: float) -> str:
    """Of a rate, by how much it changed."""
    return "steady" if abs(value) < 0.005 else f"{-value:+.1%}"


@register.filter
def ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = (timezone.now() - at).total_seconds()
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) // size:.0f} {unit} ago"
    return f"{seconds // 86400:.0f} d ago"


@register.inclusion_tag("models/_bar.html")
def fitbar(fit: dict[str, Any]) -> dict[str, Any]:
    """Weights, KV cache and overhead against one GPU's memory; longer than the GPU where it does not fit."""
    whole = max(fit["needed_bytes"] or 0, fit["gpu_memory_bytes"]) or 1
    parts = [(key, fit[f"{name}_bytes"]) for key, name in (("w", "weights"), ("kv", "kv"), ("o", "overhead"))]
    widths = [(key, f"{100 * (size or 0) / whole:.2f}%") for key, size in parts]
    return {"widths": widths, "available": f"{100 * fit['available_bytes'] / whole:.2f}%"}


@register.filter
def chip(status: str) -> SafeString:
    return format_html('<span class="chip {}">{}</span>', _CHIPS.get(status, "idle"), _WORDS.get(status, status))


_PLACES = {
    "free": "idle", "starting": "busy", "active": "ok", "idle": "idle", "lent": "ok", "other": "idle",
    "unknown": "warn", "unusable": "bad",
}  # fmt: skip
_ENDS = {"ready": "ok", "failed": "bad", "given_up": "idle", "waiting": "busy", "starting": "busy"}


@register.filter
def place(value: str) -> SafeString:
    """What a slot is for the pool."""
    words = {"other": "not the pool's", "unusable": "not usable", "unknown": "not known"}
    return format_html('<span class="chip {}">{}</span>', _PLACES.get(value, "idle"), words.get(value, value))


@register.filter
def woken(row: Activation) -> SafeString:
    """What an activation came to."""
    if row.broke_at is not None:
        return format_html('<span class="chip bad">broke later</span>')
    word = row.get_state_display().lower()
    return format_html('<span class="chip {}">{}</span>', _ENDS.get(row.state, "idle"), word)


@register.filter
def waited(row: Activation) -> str:
    """From being asked for to its end, or until now."""
    return brief(((row.ended_at or timezone.now()) - row.asked_at).total_seconds())


@register.filter
def lasted(since: datetime) -> str:
    return brief(max(0.0, (timezone.now() - since).total_seconds()))


@register.filter
def brief(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 and seconds % 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@register.filter
def unlocalized(value: float) -> str:
    """For an attribute."""
    return f"{value:.1f}"


@register.filter
def unbroken(slots: str) -> SafeString:
    """Two slots, as an activation names them, with no line that ends within a name."""
    return format_html_join(" + ", '<span class="nowrap">{}</span>', ((slot,) for slot in slots.split(" + ") if slot))


@register.filter
def role(value: str) -> SafeString:
    if not value:
        return SafeString("")
    return format_html(
        '<span class="role"><i class="glyph {}" aria-hidden="true">{}</i>{}</span>', value, value[0].upper(), value
    )


@register.filter
def glyph(value: str) -> SafeString:
    return format_html('<i class="glyph {}" title="{}" aria-label="{}">{}</i>', value, value, value, value[:1].upper())


@register.filter
def span(indexes: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


@register.filter
def severity(value: str) -> SafeString:
    return format_html('<span class="chip {}">{}</span>', _SEVERITIES.get(value, "idle"), value)


@register.filter
def fired_for(alert: Alert) -> str:
    if alert.fired_at is None or alert.resolved_at is None:
        return UNKNOWN
    seconds = (alert.resolved_at - alert.fired_at).total_seconds()
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


@register.filter
def alert_url(alert: Alert) -> str:
    """The page of what the alert is about; "" where it has none of its own."""
    if alert.subject_type == "brakerow":
        return reverse("web:brake")
    if alert.subject_type == "pool":
        return reverse("web:pool")
    if alert.subject_type == "team":
        return reverse("web:teams")
    if alert.subject_type == "gpu":
        return reverse("web:node", args=[alert.node]) if alert.node else ""
    page = "web:partition" if alert.subject_type == "partition" else _PAGES.get(alert.subject_type)
    return reverse(page, args=[alert.subject_id]) if page else ""


@register.filter
def said(verb: str) -> str:
    return SAID.get(verb.replace("_", "-"), verb.replace("_", " ").replace("-", " "))


@register.filter
def done_to(event: AuditEvent) -> str:
    """The event's verb in a sentence about its subject."""
    words = SAID_OF_CHANGES.get(event.verb) if event.subject_type == "change" else None
    return words or said(event.verb)


@register.filter
def subject_url(event: AuditEvent) -> str:
    if event.subject_id is None or event.verb in {"delete", "remove"}:
        return ""
    if event.subject_type == "partition":
        return reverse("web:partition", args=[event.subject_id])
    page = _PAGES.get(event.subject_type)
    return reverse(page, args=[event.subject_id]) if page else ""


@register.filter
def change_words(event: AuditEvent) -> str:
    """An assignment and a role change in words; other changes are told in full on the activity page."""
    before, after = event.before or {}, event.after or {}
    if event.verb in ("alert-fired", "alert-resolved"):
        return event.detail
    if event.source == AuditEvent.Source.AGENT:
        return _assignment(after) if after.get("deployment") else ""
    if event.subject_type == "partition" and ("deployment" in before or "deployment" in after):
        return f"{_assignment(before)} to {_assignment(after)}"
    if "role" in before and "role" in after:
        return f"{before['role']} to {after['role']}"
    return ""


@register.filter
def item(mapping: dict[Any, Any], key: Any) -> Any:
    return mapping.get(key)


@register.filter
def kind(row: Model) -> str:
    return row._meta.verbose_name


def _assignment(values: dict[str, Any]) -> str:
    return f"{values['deployment']} {values.get('role')}" if values.get("deployment") else "idle"


@register.filter
def changes(event: AuditEvent) -> list[tuple[str, Any, Any]]:
    """What was and what is, by name; what stayed the same is left out."""
    before, after = event.before or {}, event.after or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [(name, _short(before.get(name)), _short(after.get(name))) for name in names]


def _short(value: Any) -> str:
    return UNKNOWN if value in (None, "", [], {}) else str(value)
