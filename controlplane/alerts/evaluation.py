"""One look of all rules at the fleet: alerts begin, fire and end, and what people are to be told goes to the outbox.
The only writer of alerts, an acknowledgement aside. Running twice or late is harmless."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.apps import apps
from django.db import transaction
from django.db.models import Count, Model
from django.utils import timezone

from controlplane.alerts import outbox, scene
from controlplane.alerts.matching import has_labels
from controlplane.alerts.models import Alert, AlertRule
from controlplane.alerts.readers import READERS
from controlplane.alerts.rules import ensure_rows
from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.audit.services import Actor, record
from controlplane.domain.alerting import FLAP_WITHIN_S, State, Track, step

ACTOR = Actor.system("forebay")
LOCK = "node-silent"  # the row by which two looks at once take turns
COLUMNS = ["state", "severity", "value", "text", "fired_at", "good_since", "resolved_at"]
OF_FLEET = {"node", "gpu", "partition", "deployment", "gatewaybeat", "brakerow"}
Key = tuple[str, int]


def tick(now: datetime | None = None) -> None:
    now = now or timezone.now()
    ensure_rows()
    seen = scene.look(now)
    with transaction.atomic():
        AlertRule.objects.select_for_update().get(key=LOCK)
        opened = _open_by_rule()
        news = _News()
        for rule in AlertRule.objects.all():
            _judge(rule, opened[rule.key], seen, news)
        news.write()
        outbox.put(now)


class _News:
    """What one look changes, written in one go: a rack that falls silent is a few statements, not hundreds."""

    def __init__(self) -> None:
        self.new: list[Alert] = []
        self.changed: list[Alert] = []
        self.over: list[int] = []  # that never fired
        self.told: list[Alert] = []  # that fired or ended

    def write(self) -> None:
        Alert.objects.filter(pk__in=self.over).delete()
        Alert.objects.bulk_create(self.new, batch_size=500)
        Alert.objects.bulk_update(self.changed, COLUMNS, batch_size=500)
        _record(self.told)


def _open_by_rule() -> defaultdict[str, dict[Key, Alert]]:
    found: defaultdict[str, dict[Key, Alert]] = defaultdict(dict)
    for alert in Alert.objects.exclude(state=State.RESOLVED):
        found[alert.rule][alert.subject_type, alert.subject_id] = alert
    return found


def _judge(rule: AlertRule, opened: dict[Key, Alert], seen: Scene, news: _News) -> None:
    if not rule.enabled:
        for alert in opened.values():
            _end(alert, seen.now, "The rule was switched off.", news)
        return
    reader = READERS[rule.key]
    facts = _facts(rule, reader.read(seen, _watch(rule, opened)))
    flaps = _flaps(rule, seen.now) if facts.keys() - opened.keys() else {}
    for key, fact in facts.items():
        _look(rule, opened.get(key) or _unseen(rule, fact, seen.now, flaps.get(key, 0)), fact, seen.now, news)
    for key, alert in opened.items():
        if key not in facts and not seen.is_unknown(alert.node, reader.needs):
            _look(rule, alert, None, seen.now, news)


def _watch(rule: AlertRule, opened: dict[Key, Alert]) -> Watch:
    return Watch(rule.limits, frozenset(alert.node for alert in opened.values() if alert.node is not None))


def _facts(rule: AlertRule, found: Iterable[Fact]) -> dict[Key, Fact]:
    return {
        (fact.subject.type, fact.subject.id): fact for fact in found if has_labels(fact.subject.labels, rule.labels)
    }


def _flaps(rule: AlertRule, now: datetime) -> dict[Key, int]:
    """How often each subject's alert fired within the hour, in one query."""
    lately = Alert.objects.filter(rule=rule.key, fired_at__gt=now - timedelta(seconds=FLAP_WITHIN_S)).order_by()
    counted = lately.values_list("subject_type", "subject_id").annotate(count=Count("id"))
    return {(type_, pk): count for type_, pk, count in counted}


def _unseen(rule: AlertRule, fact: Fact, now: datetime, flaps: int) -> Alert:
    """Not yet an alert; it is one if the value is bad."""
    subject: Subject = fact.subject
    return Alert(
        rule=rule.key,
        severity=rule.severity,
        subject_type=subject.type,
        subject_id=subject.id,
        subject_name=subject.name[:255],
        node=subject.node,
        labels=subject.labels,
        flaps=flaps,
        since=now,
    )


def _look(rule: AlertRule, alert: Alert, fact: Fact | None, now: datetime, news: _News) -> None:
    """Without a fact all is well with it."""
    limits, at = rule.limits, now.timestamp()
    before = _track(alert)
    if fact is None:
        # What the reader does not name is on the good side of every limit.
        value: float | None = float("-inf") if limits.above else float("inf")
    else:
        value = fact.value
    after = step(limits, before, value, at, flaps=alert.flaps)
    if after is None:
        news.over += [alert.pk] if alert.pk else []
        return
    said = (alert.value, alert.text)
    if fact is not None and fact.value is not None and fact.text != alert.text:
        alert.value, alert.text = fact.value, fact.text[:500]
    if after == before and said == (alert.value, alert.text):
        return
    _set(alert, after, before, rule, news)


def _set(alert: Alert, after: Track, before: Track | None, rule: AlertRule, news: _News) -> None:
    moment = datetime.fromtimestamp(after.since, UTC)
    is_turn = before is None or after.state is not before.state
    alert.state = Alert.State(after.state.value)
    alert.good_since = None if after.good_since is None else datetime.fromtimestamp(after.good_since, UTC)
    if is_turn and after.state is State.FIRING:
        alert.fired_at, alert.severity = moment, rule.severity
    if is_turn and after.state is State.RESOLVED:
        alert.resolved_at = moment
    (news.changed if alert.pk else news.new).append(alert)
    if is_turn and after.state is not State.PENDING:
        news.told.append(alert)


def _end(alert: Alert, now: datetime, why: str, news: _News) -> None:
    if alert.state == Alert.State.PENDING:
        news.over.append(alert.pk)
        return
    alert.state, alert.resolved_at, alert.text = Alert.State.RESOLVED, now, why
    news.changed.append(alert)
    news.told.append(alert)


def _track(alert: Alert) -> Track | None:
    if alert.pk is None:
        return None
    since = alert.since if alert.state == Alert.State.PENDING else alert.fired_at
    good = alert.good_since.timestamp() if alert.good_since else None
    return Track(State(alert.state), (since or alert.since).timestamp(), good, alert.flaps)


def _record(alerts: list[Alert]) -> None:
    """On what they are about, so that its charts have the mark; on the alert itself where that is gone."""
    subjects = _subjects(alerts)
    for alert in alerts:
        verb = "alert-fired" if alert.state == Alert.State.FIRING else "alert-resolved"
        subject = subjects.get((alert.subject_type, alert.subject_id), alert)
        after = {"alert": alert.pk, "rule": alert.rule, "severity": alert.severity}
        record(ACTOR, verb, subject, after=after, detail=f"{alert.title}: {alert.text}")


def _subjects(alerts: list[Alert]) -> dict[Key, Model]:
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for alert in alerts:
        if alert.subject_type in OF_FLEET:
            wanted[alert.subject_type].add(alert.subject_id)
    found: dict[Key, Model] = {}
    for type_, pks in wanted.items():
        rows = apps.get_model("fleet", type_)._default_manager.filter(pk__in=pks)
        if type_ in ("gpu", "partition"):
            rows = rows.select_related("node")
        found |= {(type_, row.pk): row for row in rows}
    return found
