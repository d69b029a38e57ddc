"""Changing the limits of a rule."""

from __future__ import annotations

import math
from typing import Any

from django.db import transaction

from controlplane.alerts.models import AlertRule
from controlplane.alerts.services.checks import labels_problems
from controlplane.audit.services import Actor, record
from controlplane.domain.alerting import SEVERITIES
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid, NotFound

FIELDS = ("enabled", "threshold", "for_s", "severity", "labels")
LONGEST_S = 7 * 24 * 3600.0
LARGEST = 1e18


@transaction.atomic
def change_rule(rule_id: int, *, actor: Actor, reason: str = "", **values: Any) -> AlertRule:
    """What is given of FIELDS is changed. It holds from the next look, within 10 s."""
    rule = AlertRule.objects.select_for_update().filter(pk=rule_id).first()
    if rule is None:
        raise NotFound("alert rule", rule_id)
    if problems := _problems(rule, values):
        raise Invalid(problems)
    before = {name: getattr(rule, name) for name in FIELDS}
    after = before | {name: values[name] for name in FIELDS if name in values}
    if after != before:
        for name, value in after.items():
            setattr(rule, name, value)
        rule.save(update_fields=list(FIELDS))
        record(actor, "change", rule, before=before, after=after, reason=reason)
    return rule


def _problems(rule: AlertRule, values: dict[str, Any]) -> list[Problem]:
    kind, found = rule.kind, labels_problems(values.get("labels", {}))
    threshold = values.get("threshold", rule.threshold)
    if kind.fixed and threshold != kind.threshold:
        text = f"{kind.title} has no threshold: it is so, or it is not."
        found.append(Problem("threshold", text, "Change how long it has to be so, or switch it off."))
    elif not math.isfinite(threshold) or not 0 < threshold <= LARGEST:
        found.append(Problem("threshold", "A threshold is more than 0.", f"Its unit is {kind.unit or 'a share'}."))
    if not 0 <= values.get("for_s", 0) <= LONGEST_S:
        found.append(Problem("for_s", "The duration is 0 seconds to 7 days.", "0 fires at the first sight."))
    if values.get("severity", "info") not in set(SEVERITIES):
        found.append(Problem("severity", "There is no such severity.", f"Use {', '.join(SEVERITIES)}."))
    return found
