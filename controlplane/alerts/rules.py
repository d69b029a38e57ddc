"""The rows of the rules: one for each of domain.alert_rules."""

from __future__ import annotations

from typing import Any

from controlplane.alerts.models import AlertRule
from controlplane.domain.alert_rules import KINDS


def ensure_rows(**_: Any) -> None:
    """Make the rows that are missing. Those of rules that are no more are deleted; what was edited stays."""
    known = set(AlertRule.objects.values_list("key", flat=True))
    missing = [kind for kind in KINDS.values() if kind.key not in known]
    AlertRule.objects.bulk_create(
        [
            AlertRule(
                key=kind.key,
                enabled=True,
                threshold=kind.threshold,
                for_s=kind.for_s,
                severity=kind.severity.value,
            )
            for kind in missing
        ],
        ignore_conflicts=True,
    )
    if known - KINDS.keys():
        AlertRule.objects.exclude(key__in=KINDS).delete()
