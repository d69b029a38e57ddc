"""Alerts in the words of each kind of target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from controlplane.alerts.models import Alert, Delivery

SHOWN = 20  # alerts that one message for people spells out; the page has all
COLOURS = {"critical": "#d64545", "warning": "#d99a1c", "info": "#3d8fd1", "resolved": "#2f9e62"}
PAGERDUTY_SEVERITIES = {"critical": "critical", "warning": "warning", "info": "info"}


@dataclass(frozen=True, slots=True)
class Told:
    """One transition of one alert, as it is told."""

    alert: Alert
    resolved: bool

    @property
    def line(self) -> str:
        alert = self.alert
        word = "Resolved" if self.resolved else alert.severity.capitalize()
        played = " (simulated)" if alert.simulated else ""
        return f"{word}: {alert.title}, {alert.subject_name}{played}. {alert.text}"


def told(deliveries: Sequence[Delivery]) -> list[Told]:
    """In order: what began before what ended."""
    return [Told(one.alert, one.transition == Delivery.Transition.RESOLVED) for one in deliveries]


def sample(now: datetime) -> Told:
    """For trying a target out. It says that it is a test."""
    alert = Alert(
        pk=0, rule="test", severity="info", subject_type="test", subject_id=0, subject_name="a test", labels={},
        state=Alert.State.FIRING, text="Nothing is wrong: somebody tries this target out.", since=now, fired_at=now,
    )  # fmt: skip
    return Told(alert, resolved=False)


def summary(items: Sequence[Told]) -> str:
    """One line for all of them."""
    if len(items) == 1:
        return items[0].line
    ended = sum(item.resolved for item in items)
    parts = [f"{len(items) - ended} firing"] if ended < len(items) else []
    parts += [f"{ended} resolved"] if ended else []
    titles = list(dict.fromkeys(item.alert.title for item in items))
    return f"{', '.join(parts)}: {', '.join(titles[:3])}{' and others' if len(titles) > 3 else ''}"


def webhook(items: Sequence[Told], key: str, now: datetime) -> dict[str, Any]:
    return {
        "version": 1,
        "key": key,
        "sent_at": now.isoformat(),
        "from": settings.PUBLIC_URL,
        "summary": summary(items),
        "alerts": [_whole(item) for item in items],
    }


def slack(items: Sequence[Told]) -> dict[str, Any]:
    shown = [
        {
            "color": COLOURS["resolved" if item.resolved else item.alert.severity],
            "fallback": _escaped(item.line),
            "text": _escaped(item.line),
        }
        for item in items[:SHOWN]
    ]
    if len(items) > SHOWN:
        more = f"And {len(items) - SHOWN} more: {_page()}"
        shown.append({"color": COLOURS["info"], "fallback": more, "text": more})
    return {"text": f"{_escaped(summary(items))} <{_page()}|Look>", "attachments": shown}


def email(items: Sequence[Told]) -> tuple[str, str]:
    """Subject and text."""
    lines = [item.line for item in items[:SHOWN]]
    if len(items) > SHOWN:
        lines.append(f"And {len(items) - SHOWN} more.")
    subject = " ".join(f"[Forebay] {summary(items)}".split())[:200]
    return subject, "\n\n".join([*lines, f"All alerts: {_page()}"]) + "\n"


def pagerduty(item: Told, routing_key: str) -> dict[str, Any]:
    """One event: what ends an incident has the key of what began it."""
    alert = item.alert
    event = {
        "routing_key": routing_key,
        "event_action": "resolve" if item.resolved else "trigger",
        "dedup_key": f"{settings.PUBLIC_URL}/alerts/{alert.pk}",
        "client": "Forebay",
        "client_url": _page(),
    }
    payload = {
        "summary": item.line[:1024],
        "source": alert.subject_name,
        "severity": PAGERDUTY_SEVERITIES[alert.severity],
        "timestamp": (alert.fired_at or alert.since).isoformat(),
        "component": alert.subject_type,
        "class": alert.rule,
        "custom_details": {"labels": alert.labels, "value": alert.value},
    }
    return {**event, "payload": payload}


def _whole(item: Told) -> dict[str, Any]:
    alert = item.alert
    moments = {"fired_at": alert.fired_at, "resolved_at": alert.resolved_at if item.resolved else None}
    return {
        "id": alert.pk,
        "transition": "resolved" if item.resolved else "fired",
        "rule": alert.rule,
        "title": alert.title,
        "severity": alert.severity,
        "subject": {"type": alert.subject_type, "id": alert.subject_id, "name": alert.subject_name},
        "labels": alert.labels,
        "value": alert.value,
        "text": alert.text,
        **{name: moment and moment.isoformat() for name, moment in moments.items()},
        "url": _page(),
    }


def _page() -> str:
    return f"{settings.PUBLIC_URL.rstrip('/')}/alerts/"


def _escaped(text: str) -> str:
    """Names are others' words: none may become a link or call a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
