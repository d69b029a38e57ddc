"""A list costs the same number of queries whether it has two rows or twenty."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.models import AuditEvent
from controlplane.costs.models import NodePrice
from controlplane.fleet.models import JoinToken
from controlplane.gateway.models import ApiKey, DemandMinute
from controlplane.teams.models import DeploymentTeam, Team
from tests.api.conftest import make_change, make_request
from tests.factories import make_deployment, make_node, make_partition, make_ready, make_user

LISTS = (
    "nodes", "gpus", "models", "deployments", "partitions", "replicas", "requests", "demand", "events", "keys",
    "join-tokens", "live", "changes", "teams", "prices",
)  # fmt: skip


def one_more_of_each() -> None:
    """With all the relations that a row of the lists shows."""
    number = AuditEvent.objects.count()
    user = make_user("admin")
    deployment = make_deployment()
    node = make_node(gpus=2)
    NodePrice.objects.create(node=node, since=timezone.now(), per_gpu_hour=2)
    make_ready(make_partition(node, gpus=2, deployment=deployment, role="prefill"))
    make_ready(make_partition(node, deployment=deployment, role="decode"))
    team = Team.objects.create(name=f"team-{number}")
    DeploymentTeam.objects.create(team=team, deployment=deployment)
    key = ApiKey.objects.create(name="k", prefix="fb-", key_hash=f"hash-{number}", created_by=user, team=team)
    make_request(api_key=key)
    minute = timezone.now() - timedelta(minutes=number)
    DemandMinute.objects.create(deployment=deployment.name, minute=minute)
    JoinToken.objects.create(
        token_hash=f"hash-{number}", prefix="x", created_by=user, used_by=node, expires_at=timezone.now()
    )
    make_change(make_partition(node), deployment)
    AuditEvent.objects.create(actor=user, actor_name="a", verb="v", subject_type="node", subject_name="n", source="web")


def queries_of(client: APIClient, address: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        response = client.get(f"/api/v1/{address}")
    assert response.status_code == 200, response.content
    return len(captured)


@pytest.mark.parametrize("address", LISTS)
def test_a_longer_list_takes_no_more_queries(address: str, admin: APIClient) -> None:
    for _ in range(2):
        one_more_of_each()
    few = queries_of(admin, address)
    for _ in range(10):
        one_more_of_each()
    assert queries_of(admin, address) == few
    assert few <= (17 if address == "live" else 13)  # whose first look reads sums too, to know what to read later


def test_one_node_takes_no_more_queries_with_more_on_it(viewer: APIClient) -> None:
    small, large = make_node(gpus=1), make_node(gpus=4)
    make_partition(small)
    for _ in range(4):
        make_ready(make_partition(large, gpus=2, role="decode"))
    assert queries_of(viewer, f"nodes/{large.pk}") == queries_of(viewer, f"nodes/{small.pk}") <= 10
