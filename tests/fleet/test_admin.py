"""Django's admin shows the fleet, changes nothing of it, and shows no secret."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Node
from tests.factories import make_deployment, make_partition, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(
        User.objects.create_superuser("boss", password="correct horse battery"),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


def test_every_list_and_row_opens_without_a_secret_on_it(boss: Client, actor: Actor) -> None:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)
    token, plain = services.issue_join_token(actor=actor)
    partition.refresh_from_db()
    Node.objects.update(broker_hash="b" * 64)
    node = Node.objects.get()
    secrets = [partition.engine_key, node.token_hash, node.broker_hash, token.token_hash, plain]
    rows = {
        "fleet/node": node.pk, "fleet/partition": partition.pk, "fleet/gpu": partition.gpus.first().pk,
        "fleet/deployment": partition.deployment_id, "fleet/registeredmodel": partition.deployment.model_id,
        "fleet/jointoken": token.pk, "audit/auditevent": AuditEvent.objects.first().pk,
    }  # fmt: skip

    for path, pk in rows.items():
        for page in (f"/admin/{path}/", f"/admin/{path}/{pk}/change/"):
            response = boss.get(page)
            assert response.status_code == 200, page
            assert not [secret for secret in secrets if secret in response.content.decode()], page


@pytest.mark.parametrize("path", ["fleet/node", "fleet/partition", "audit/auditevent"])
def test_nothing_is_changed_there(boss: Client, actor: Actor, path: str) -> None:
    partition = make_partition(role="decode")
    services.cordon(partition.node_id, actor=actor)
    pk = {"fleet/node": partition.node_id, "fleet/partition": partition.pk}.get(path, AuditEvent.objects.first().pk)

    answers = [
        boss.get(f"/admin/{path}/add/").status_code,
        boss.post(f"/admin/{path}/{pk}/change/", {}).status_code,
        boss.post(f"/admin/{path}/{pk}/delete/", {"post": "yes"}).status_code,
    ]

    assert answers == [403, 403, 403]


def test_it_is_not_for_everybody() -> None:
    client = Client()
    client.force_login(make_user("admin"), backend="django.contrib.auth.backends.ModelBackend")

    assert client.get("/admin/fleet/node/").status_code == 302
