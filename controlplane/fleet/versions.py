"""The fleet's version: one number that counts changes of intent, so that a plan made on an older one can be told."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.db import models

from controlplane.audit import services as audit
from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment, FleetVersion, Node, Partition, Revision


def current() -> int:
    """The version as it is now."""
    return FleetVersion.objects.values_list("number", flat=True).first() or 0


def record(
    actor: Actor,
    verb: str,
    subject: models.Model,
    *,
    deployments: Iterable[int | None] = (),
    change: int | None = None,
    **told: Any,
) -> AuditEvent:
    """An audit event that makes a new version. Call it last in the change's transaction: the counter's lock is held
    to its end, and every other change waits for it. `deployments`: those that it concerns besides the subject."""
    event = audit.record(actor, verb, subject, **told)
    number = _next()
    nodes, concerned = _scope(subject)
    concerned |= {key for key in deployments if key is not None}
    Revision.objects.create(
        number=number, event=event, nodes=sorted(nodes), deployments=sorted(concerned), change_id=change
    )
    return event


def newer(version: int, *, nodes: Collection[int], deployments: Collection[int]) -> list[AuditEvent]:
    """The changes since `version` that touched any of these, newest first."""
    rows = Revision.objects.filter(number__gt=version).select_related("event").order_by("-number")
    return [row.event for row in rows if set(row.nodes) & set(nodes) or set(row.deployments) & set(deployments)]


def _next() -> int:
    row = FleetVersion.objects.select_for_update().order_by("pk").first()
    if row is None:
        row = FleetVersion.objects.get_or_create(pk=1)[0]
    row.number += 1
    row.save(update_fields=["number"])
    return row.number


def _scope(subject: models.Model) -> tuple[set[int], set[int]]:
    if isinstance(subject, Node):
        return {subject.pk}, set()
    if isinstance(subject, Partition):
        return {subject.node_id}, {subject.deployment_id} - {None}
    if isinstance(subject, Deployment):
        return set(), {subject.pk}
    return set(), set()
