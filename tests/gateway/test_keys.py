"""Keys are shown once, kept as a hash, and revoked for good; each change leaves an audit event."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import Invalid, NotFound
from controlplane.gateway import services
from controlplane.gateway.models import ApiKey
from tests.factories import make_deployment

pytestmark = pytest.mark.django_db


def test_only_the_hash_of_a_key_is_kept(actor: Actor) -> None:
    key, plain = services.create_key(name=" billing ", actor=actor)
    assert plain.startswith("fb-") and len(plain) > 40
    assert key.name == "billing"
    assert key.key_hash == services.hash_of(plain)
    assert plain.startswith(key.prefix) and len(key.prefix) < 12
    rows = str(list(ApiKey.objects.values())) + str(list(AuditEvent.objects.values()))
    assert plain not in rows
    assert services.create_key(name="other", actor=actor)[1] != plain


def test_making_and_revoking_are_audited_once_each(actor: Actor) -> None:
    make_deployment("tiny")
    key, _ = services.create_key(name="one", deployments=["tiny", "tiny"], requests_per_minute=60, actor=actor)
    services.revoke_key(key.pk, actor=actor)
    services.revoke_key(key.pk, actor=actor)
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert key.deployments == ["tiny"]
    assert sorted(AuditEvent.objects.values_list("verb", flat=True)) == ["create", "revoke"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "  "},
        {"name": "x" * 121},
        {"name": "a", "deployments": ["no-such"]},
        {"name": "a", "requests_per_minute": 0},
        {"name": "a", "expires_at": timezone.now() - timedelta(seconds=1)},
    ],
)
def test_a_key_that_could_not_work_is_refused_with_a_reason(actor: Actor, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refused:
        services.create_key(**wrong, actor=actor)
    assert refused.value.problems[0].fix
    assert not ApiKey.objects.exists()


def test_revoking_what_is_not_there_is_not_found(actor: Actor) -> None:
    with pytest.raises(NotFound):
        services.revoke_key(404, actor=actor)


def test_the_internal_key_follows_from_the_secret_key_alone(settings: object) -> None:
    first = services.internal_key()
    assert first == services.internal_key()
    settings.SECRET_KEY = "another"  # type: ignore[attr-defined]
    assert services.internal_key() != first
