"""Muting what is known, and ending that."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from controlplane.alerts.models import Silence
from controlplane.alerts.services.checks import labels_problems, text_problem
from controlplane.audit.services import Actor, record
from controlplane.domain.alert_rules import KINDS
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid, NotFound

MOST_S = 30 * 24 * 3600


@transaction.atomic
def silence(
    *, until: datetime, reason: str, rule: str = "", subject: str = "", labels: dict[str, str] | None = None,
    actor: Actor,
) -> Silence:  # fmt: skip
    """Nobody is told of what matches until then. What fires still when it ends is told then."""
    labels = labels or {}
    if problems := _problems(until, reason, rule, subject, labels):
        raise Invalid(problems)
    made = Silence.objects.create(
        rule=rule, subject=subject.strip(), labels=labels, reason=reason.strip(), until=until,
        created_by=actor.name[:150],
    )  # fmt: skip
    record(actor, "silence", made, after=_shown(made), reason=reason)
    return made


@transaction.atomic
def end_silence(silence_id: int, *, actor: Actor, reason: str = "") -> Silence:
    """Ending one that is over changes nothing."""
    found = Silence.objects.select_for_update().filter(pk=silence_id).first()
    if found is None:
        raise NotFound("silence", silence_id)
    now = timezone.now()
    if found.until > now:
        before, found.until = _shown(found), now
        found.save(update_fields=["until"])
        record(actor, "end-silence", found, before=before, after=_shown(found), reason=reason)
    return found


def _problems(until: datetime, reason: str, rule: str, subject: str, labels: dict[str, str]) -> list[Problem]:
    found = labels_problems(labels) + text_problem("reason", reason, 500, "The reason")
    now = timezone.now()
    if not now < until <= now + timedelta(seconds=MOST_S):
        found.append(Problem("until", "A silence ends within 30 days, in the future.", "Choose an earlier end."))
    if rule and rule not in KINDS:
        found.append(Problem("rule", f"There is no rule {rule}.", f"Known: {', '.join(KINDS)}."))
    if len(subject) > 255 or "\x00" in subject:
        found.append(Problem("subject", "A subject is at most 255 plain characters.", "Use * for any."))
    if not (rule or subject.strip() or labels):
        text = "A silence of everything would hide whatever happens."
        found.append(Problem("too-wide", text, "Name a rule, a subject or a label."))
    return found


def _shown(row: Silence) -> dict[str, object]:
    return {"rule": row.rule, "subject": row.subject, "labels": row.labels, "until": row.until.isoformat()}
