"""What roles want and what became of plans, as people read it."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from controlplane.scaling.models import LaneLook, ScalingPlan
from controlplane.web.templatetags.present import UNKNOWN

register = template.Library()
_KINDS = {
    "keep": ("ok", "as it should be"), "hold": ("idle", "holds"), "bound": ("warn", "its bounds"),
    "forecast": ("busy", "forecast"), "pressure": ("warn", "pressure"), "quiet": ("busy", "quiet"),
    "lost": ("bad", "lost"),
}  # fmt: skip
_STATES = {"open": "busy", "applied": "ok", "dismissed": "idle", "superseded": "idle"}


@register.filter
def kind_chip(lane: LaneLook) -> SafeString:
    return format_html('<span class="chip {}">{}</span>', *_KINDS.get(lane.kind, ("idle", lane.kind)))


@register.filter
def decision_chip(plan: ScalingPlan) -> SafeString:
    return format_html('<span class="chip {}">{}</span>', _STATES[plan.state], plan.get_state_display().lower())


@register.filter
def rates(lane: LaneLook) -> str:
    """Now, and what is to come."""
    if lane.rate_now is None or lane.rate_coming is None:
        return UNKNOWN
    return f"{_rate(lane.rate_now)} → {_rate(lane.rate_coming)}"


@register.filter
def moved(plan: ScalingPlan) -> int:
    """Partitions: one may both leave the pool and be given away."""
    return len({row["partition"] for row in (*plan.moves, *plan.pool)})


@register.filter
def switched(plan: ScalingPlan) -> str:
    """Of a plan that goes to another kind of engines: from which roles to which, by deployment."""
    effects = plan.preview.get("effects", []) if plan.switches else []
    names = dict.fromkeys(effect["deployment"]["name"] for effect in effects)
    return " ".join(_switch([one for one in effects if one["deployment"]["name"] == name], name) for name in names)


def _switch(effects: list[dict[str, Any]], name: str) -> str:
    gone = [one["role"] for one in effects if one["engines_before"] and not one["engines_after"]]
    new = [one["role"] for one in effects if one["engines_after"] and not one["engines_before"]]
    if not (gone and new):
        return ""
    return f"{name} goes from {' and '.join(gone)} engines to {' and '.join(new)} engines."


@register.filter
def whys(plan: ScalingPlan) -> str:
    return "; ".join(dict.fromkeys(row["why"] for row in (*plan.moves, *plan.pool)))


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
