"""No answer to a viewer or an operator holds a secret, wherever they look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from knox.models import AuthToken
from rest_framework.test import APIClient

from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.publish import publish
from controlplane.gateway.services import create_key
from tests.api.conftest import World
from tests.api.test_permissions import LEAST
from tests.factories import make_user


def addresses(world: World) -> list[str]:
    """Every address that can be read, of lists and of the rows of this world."""
    pks = {
        "nodes": [world.node.pk],
        "gpus": [gpu.pk for gpu in world.node.gpus.all()],
        "models": [world.model.pk],
        "deployments": [world.deployment.pk],
        "partitions": [world.partition.pk, world.idle.pk],
        "replicas": [world.partition.pk],
        "requests": [world.request.pk],
        "events": list(range(1, world.event.pk + 20)),
        "keys": [world.key.pk],
        "teams": [world.team.pk],
        "join-tokens": [world.join_token.pk],
        "alerts": [world.alert.pk],
        "silences": [world.silence.pk],
        "alert-rules": [world.rule.pk],
        "alert-targets": [world.target.pk],
    }
    found = []
    for method, route in LEAST:
        if method == "GET" and route not in {"schema", "docs"}:
            resource = route.split("/")[0]
            found += [route.replace("{pk}", str(pk)) for pk in pks.get(resource, [0])] if "{" in route else [route]
    return [*found, f"samples?node={world.node.pk}&metric=utilization"]


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_no_secret_is_ever_shown(role: str, world: World, actor: Actor, as_role: Callable[[str], APIClient]) -> None:
    _, gateway_key = create_key(name="more", actor=actor)
    services.assign(world.idle.pk, deployment_id=world.deployment.pk, role="aggregated", actor=actor)
    services.release(world.partition.pk, actor=actor)
    publish(world.node)
    world.idle.refresh_from_db()
    token, plain = AuthToken.objects.create(make_user("admin"))
    secrets = world.secrets | {
        "another engine key": world.idle.engine_key,
        "gateway key": gateway_key,
        "token": plain,
        "token's hash": token.digest,
    }
    assert all(secrets.values()), "an empty secret would be found nowhere"
    client = as_role(role)
    read = 0
    for address in addresses(world):
        response = client.get(f"/api/v1/{address}")
        read += response.status_code == 200
        text = response.getvalue().decode()
        for name, secret in secrets.items():
            assert secret not in text, f"the {name} is in {address}"
    assert read >= 20


def test_the_search_would_find_a_secret(world: World, admin: APIClient) -> None:
    """The same search over what an admin may ask for does find one: it is not blind."""
    text = admin.get(f"/api/v1/nodes/{world.node.pk}?secrets=true").content.decode()
    assert world.secrets["engine key"] in text


def test_even_an_admin_is_shown_no_hash(world: World, admin: APIClient) -> None:
    for address in addresses(world):
        text = admin.get(f"/api/v1/{address}").getvalue().decode()
        for name, secret in world.secrets.items():
            assert secret not in text, f"the {name} is in {address}"
