"""Make and revoke the keys that open the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet.errors import Invalid, NotFound
from controlplane.fleet.models import Deployment
from controlplane.gateway import keys
from controlplane.gateway.keys import hash_of
from controlplane.gateway.models import ApiKey
from controlplane.teams.services import team_named

__all__ = ["create_key", "give_to_team", "hash_of", "internal_key", "revoke_key"]


def create_key(
    *,
    name: str,
    deployments: Sequence[str] = (),
    requests_per_minute: int | None = None,
    expires_at: datetime | None = None,
    team: str | None = None,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """A new key and its plain text, which is nowhere kept. No deployments means all of them. `team`: its name."""
    deployments = list(dict.fromkeys(deployments))
    if problems := _problems(name, deployments, requests_per_minute, expires_at):
        raise Invalid(problems)
    plain = keys.new()
    with transaction.atomic():
        key = ApiKey.objects.create(
            name=name.strip(),
            prefix=plain[: keys.SHOWN],
            key_hash=hash_of(plain),
            deployments=deployments,
            requests_per_minute=requests_per_minute,
            expires_at=expires_at,
            team=team_named(team),
            created_by=actor.user,
        )
        record(actor, "create", key, after=_shown(key))
    return key, plain


def revoke_key(key_id: int, *, actor: Actor) -> None:
    """Gateways stop taking it when they next read their table. Revoking twice changes nothing."""
    with transaction.atomic():
        key = ApiKey.objects.select_for_update().filter(pk=key_id).first()
        if key is None:
            raise NotFound("API key", key_id)
        if key.revoked_at is not None:
            return
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        record(actor, "revoke", key, before=_shown(key))


@transaction.atomic
def give_to_team(key_id: int, *, team: str | None, actor: Actor, reason: str = "") -> ApiKey:
    """What is used from now on counts as that team's; None: as nobody's. What was counted stays where it is."""
    key = ApiKey.objects.select_for_update().filter(pk=key_id).first()
    if key is None:
        raise NotFound("API key", key_id)
    before, key.team = _shown(key), team_named(team)
    if (after := _shown(key)) != before:
        key.save(update_fields=["team"])
        record(actor, "change", key, before=before, after=after, reason=reason)
    return key


def internal_key() -> str:
    """For the web process, when a person tries a model in the playground."""
    return keys.internal(settings.SECRET_KEY)


def _problems(
    name: str, deployments: list[str], requests_per_minute: int | None, expires_at: datetime | None
) -> list[Problem]:
    found = []
    if not name.strip() or len(name) > 120:
        found.append(Problem("name", "A key needs a name of 1 to 120 characters.", "Name the program that uses it."))
    known = set(Deployment.objects.filter(name__in=deployments).values_list("name", flat=True))
    if unknown := [name for name in deployments if name not in known]:
        found.append(Problem("deployments", f"There is no deployment {', '.join(unknown)}.", "Use deployment names."))
    if requests_per_minute is not None and requests_per_minute < 1:
        found.append(Problem("requests_per_minute", "A rate limit is at least 1 a minute.", "Leave it out for none."))
    if expires_at is not None and expires_at <= timezone.now():
        found.append(Problem("expires_at", "The key would be expired already.", "Choose a time to come."))
    return found


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "prefix": key.prefix,
        "deployments": key.deployments,
        "requests_per_minute": key.requests_per_minute,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "team": key.team.name if key.team else None,
    }
