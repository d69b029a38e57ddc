"""Which alerts a rule's scope and a silence are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase

from controlplane.alerts.models import Alert, Silence


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def in_force(now: datetime) -> list[Silence]:
    return list(Silence.objects.filter(until__gt=now))


def silence_of(alert: Alert, silences: Iterable[Silence]) -> Silence | None:
    """The one that lasts longest of those that mute the alert."""
    return max((one for one in silences if _mutes(one, alert)), key=lambda one: one.until, default=None)


def told(now: datetime) -> int:
    """How many fire that people are told of: those that a silence mutes do not count."""
    firing, silences = Alert.objects.filter(state=Alert.State.FIRING), in_force(now)
    if not silences:
        return firing.count()
    return sum(1 for alert in firing.only("rule", "subject_name", "labels") if silence_of(alert, silences) is None)


def _mutes(silence: Silence, alert: Alert) -> bool:
    return (
        silence.rule in ("", alert.rule)
        and (not silence.subject or fnmatchcase(alert.subject_name, silence.subject.replace("[", "[[]")))
        and has_labels(alert.labels, silence.labels)
    )
