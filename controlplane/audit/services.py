"""The one way an event is written: a call inside the change's own transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import models

from controlplane.audit.models import AuditEvent

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from where. Faces build it from the request; programs use `system()`."""

    name: str
    source: str
    user: User | None = None
    request_id: str = ""
    address: str = ""

    @classmethod
    def system(cls, name: str) -> Actor:
        return cls(name=name, source=AuditEvent.Source.SYSTEM)

    @classmethod
    def agent(cls, node_name: str) -> Actor:
        return cls(name=f"agent {node_name}", source=AuditEvent.Source.AGENT)


def record(
    actor: Actor,
    verb: str,
    subject: models.Model,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
    detail: str = "",
) -> AuditEvent:
    """Write one event. `before` and `after` must hold no secret; they are shown to viewers."""
    return AuditEvent.objects.create(
        actor=actor.user,
        actor_name=actor.name[:150],
        source=actor.source,
        verb=verb,
        subject_type=subject._meta.model_name,
        subject_id=subject.pk,
        subject_name=str(subject)[:255],
        reason=reason,
        before=before,
        after=after,
        detail=detail,
        request_id=actor.request_id,
        address=actor.address,
    )
