"""Parts of a previewed change as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from controlplane.web.drafts import Draft
from controlplane.web.templatetags.present import UNKNOWN, figure

register = template.Library()
_ACTIONS = {
    "none": ("idle", "no change", "It is so already."),
    "start": ("busy", "start", "Nothing runs there now; an engine is started."),
    "relabel": ("ok", "relabel", "Only routing changes; the engine stays up and requests end where they are."),
    "replace": ("warn", "replace", "The engine drains and stops, another one starts."),
    "stop": ("warn", "stop", "The engine drains and stops; the partition stays."),
}
_STATES = {
    "running": ("busy", "running"), "stopped": ("bad", "stopped"), "done": ("ok", "done"),
    "rolled_back": ("warn", "rolled back"), "waiting": ("idle", "waiting"), "failed": ("bad", "failed"),
}  # fmt: skip
HELD = "Many nodes are silent: it goes on once they are back, or when the brake is released."
_KINDS = {"change": "Change", "undo": "Undo", "drain": "Drain"}


@register.filter
def action_chip(action: str) -> SafeString:
    look, word, meaning = _ACTIONS.get(action, ("idle", action, ""))
    return format_html('<span class="chip {}" title="{}">{}</span>', look, meaning, word)


@register.simple_tag(takes_context=True)
def change_chip(context: Mapping[str, Any], change: Mapping[str, Any]) -> SafeString:
    """Its state; one that runs takes no step while the brake is on, and says so."""
    if change["state"] == "running" and (brake := context["shell"].brake) and brake.on:
        return format_html('<span class="chip warn" title="{}">held by the brake</span>', HELD)
    return format_html('<span class="chip {}">{}</span>', *_STATES.get(change["state"], ("idle", change["state"])))


@register.filter
def kind_word(kind: str) -> str:
    return _KINDS.get(kind, kind)


@register.filter
def move_words(move: dict[str, Any]) -> str:
    """What the move does to who is served there now, and how long it takes."""
    words = [_ACTIONS.get(move["action"], ("", "", ""))[2]]
    if move["action"] in {"replace", "stop", "relabel"} and move["in_flight"] is not None:
        waiting = f" and {move['waiting']:.0f} waiting" if move["waiting"] else ""
        words.append(f"{move['in_flight']:.0f} in flight{waiting}.")
    if move["expected_s"] is not None:
        words.append(f"About {_whole(move['expected_s'])}.")
    elif move["at_most_s"] is not None:
        words.append(f"At most {_whole(move['at_most_s'])}, as long as its requests take.")
    elif move["action"] in {"start", "replace"}:
        words.append("How long is not known: no start of it was measured yet.")
    return " ".join(word for word in words if word)


def _whole(seconds: float) -> str:
    """On one line with its unit."""
    return figure(seconds, "s").replace(" ", "\u00a0")


@register.filter
def without(draft: Draft, partition: int) -> str:
    return draft.without(partition).query


@register.simple_tag
def objective(value: float | None, limit: float | None) -> SafeString:
    """A measured figure against its objective; past it is said in words as well as in colour."""
    if value is None:
        return format_html('{}<span class="muted"> of {}</span>', UNKNOWN, figure(limit, "ms")) if limit else UNKNOWN
    if not limit:
        return format_html("{}", figure(value, "ms"))
    if value > limit:
        return format_html('<span class="warned">{} over {}</span>', figure(value), figure(limit, "ms"))
    return format_html('{}<span class="muted"> of {}</span>', figure(value), figure(limit, "ms"))


@register.filter
def summary(change: dict[str, Any]) -> str:
    """What moved, in one line: the first two, and how many more."""
    moves = [f"{move['partition']['name']} to {_place(move['after'])}" for move in change["moves"]]
    slots = change.get("pool", [])
    moves += [f"{row['partition']['name']} {'into' if row['after'] else 'out of'} the pool" for row in slots]
    more = f" and {len(moves) - 2} more" if len(moves) > 2 else ""
    return f"{', '.join(moves[:2])}{more}"


@register.filter
def step_words(step: dict[str, Any]) -> str:
    """Seconds so far of those expected; afterwards how many it took."""
    if step["began_at"] is None:
        return f"about {figure(step['expected_s'], 's')}" if step["expected_s"] is not None else ""
    ended = datetime.fromisoformat(step["ended_at"]) if step["ended_at"] else timezone.now()
    took = (ended - datetime.fromisoformat(step["began_at"])).total_seconds()
    if step["ended_at"]:
        return figure(max(0.0, took), "s")
    expected = f" of about {figure(step['expected_s'], 's')}" if step["expected_s"] is not None else ""
    return f"{max(0.0, took):.0f} s{expected}"


@register.filter
def took(change: dict[str, Any]) -> str:
    if change["finished_at"] is None:
        return UNKNOWN
    return figure(max(0.0, (change["finished_at"] - change["created_at"]).total_seconds()), "s")


@register.filter
def is_quick(change: dict[str, Any]) -> bool:
    """Whether going back touches routing alone, so that one click is enough."""
    return all(move["action"] in {"relabel", "none"} for move in change["moves"])


def _place(side: dict[str, Any]) -> str:
    return f"{side['role']} of {side['deployment']['name']}" if side["deployment"] else "unassigned"
