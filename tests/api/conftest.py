"""Callers of each role, and a small fleet that has one of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.alerts import services as alerts
from controlplane.alerts.models import Alert, AlertRule, AlertTarget, Silence
from controlplane.audit import service_accounts
from controlplane.audit.models import AuditEvent, ServiceAccount
from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.domain.types import Role
from controlplane.fleet import services
from controlplane.fleet.models import Change, Deployment, Gpu, JoinToken, Node, Partition, RegisteredModel
from controlplane.fleet.publish import publish
from controlplane.gateway.models import ApiKey, DemandMinute, RequestRecord
from controlplane.scaling.models import ScalingPlan
from controlplane.teams import services as teams
from controlplane.teams.models import Team
from tests.factories import (
    make_deployment,
    make_model,
    make_node,
    make_partition,
    make_ready,
    make_scaling_plan,
    make_user,
)

ROLES = ("viewer", "operator", "admin")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _fresh_throttles() -> None:
    cache.clear()


@pytest.fixture
def as_role(db: None) -> Callable[[str], APIClient]:
    """A client logged in as that role: "nobody" has an account without a role, "anonymous" has none."""

    def client(role: str) -> APIClient:
        made = APIClient()
        if role != "anonymous":
            made.force_authenticate(make_user("" if role == "nobody" else role))
        return made

    return client


@pytest.fixture
def viewer(as_role: Callable[[str], APIClient]) -> APIClient:
    return as_role("viewer")


@pytest.fixture
def operator(as_role: Callable[[str], APIClient]) -> APIClient:
    return as_role("operator")


@pytest.fixture
def admin(as_role: Callable[[str], APIClient]) -> APIClient:
    return as_role("admin")


@dataclass
class World:
    """One of everything. `secrets` is what no viewer or operator may ever read."""

    node: Node
    model: RegisteredModel
    deployment: Deployment
    partition: Partition  # assigned and ready
    idle: Partition
    free_gpu: Gpu
    key: ApiKey
    team: Team
    join_token: JoinToken
    change: Change  # done
    request: RequestRecord
    event: AuditEvent
    service: ServiceAccount
    plan: ScalingPlan  # open: one engine more
    alert: Alert  # fires
    silence: Silence
    rule: AlertRule
    target: AlertTarget  # nobody listens there
    secrets: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def world(db: None, actor: Actor) -> World:
    node = make_node("alpha", gpus=1, broker_hash="b" * 64)
    model = make_model("smollm2")
    deployment = make_deployment("chat", model=model)
    partition = make_partition(node, deployment=deployment, role="aggregated", name="p0")
    publish(node)
    partition.refresh_from_db()
    make_ready(partition)
    idle = make_partition(node, name="p1")
    token, plain = services.issue_join_token(actor=actor)
    key = ApiKey.objects.create(name="billing", prefix="fb-abcd", key_hash="c" * 64)
    team = teams.create_team(name="search", deployments=["chat"], actor=actor)
    request = make_request(deployment="chat", api_key=key)
    DemandMinute.objects.create(deployment="chat", minute=timezone.now().replace(second=0, microsecond=0), arrivals=3)
    event = AuditEvent.objects.latest("id")
    service = service_accounts.create(name="ticker", role="operator", actor=actor)
    change = make_change(idle, deployment)
    at = timezone.now()
    alert = Alert.objects.create(
        rule="node-silent", severity="critical", subject_type="node", subject_id=node.pk, subject_name="alpha",
        state="firing", text="No report.", since=at, fired_at=at, told_at=at,
    )  # fmt: skip
    silence = alerts.silence(until=at + timedelta(hours=1), reason="known", rule="gpu-hot", actor=actor)
    target = alerts.create_target(
        name="hook", kind="webhook", address="http://127.0.0.1:9/s3cret-path", secret="signs-webhooks", actor=actor
    )
    rule = AlertRule.objects.get(key="gpu-hot")
    secrets = {
        "path of a target": "s3cret-path",
        "secret of a target": "signs-webhooks",
        "sealed target": target.sealed,
        "engine key": partition.engine_key,
        "node token's hash": node.token_hash,
        "broker password's hash": node.broker_hash,
        "key's hash": key.key_hash,
        "join token": plain,
        "join token's hash": token.token_hash,
    }
    free = node.gpus.get(partition=None)
    node.refresh_from_db()
    return World(
        node=node, model=model, deployment=deployment, partition=partition, idle=idle, free_gpu=free, key=key,
        team=team, join_token=token, change=change, request=request, event=event, service=service, alert=alert,
        silence=silence, rule=rule, target=target, secrets=secrets, plan=make_scaling_plan(idle, deployment),
    )  # fmt: skip


def make_change(partition: Partition, deployment: Deployment, **columns: Any) -> Change:
    """One that was done, as its row is left: the partition itself is not touched."""
    plan = services.preview_change([Move(partition.pk, deployment.pk, Role.AGGREGATED)])
    at = timezone.now().isoformat()
    taken = {"state": "done", "back": False, "began_at": at, "ended_at": at, "message": "", "deadline_s": 9.0}
    steps = [{**step, **taken, "restarts": 0} for step in plan["steps"]]
    defaults = {
        "state": Change.State.DONE, "plan": plan, "moves": plan["moves"], "steps": steps, "version": plan["version"],
        "actor_name": "olga", "source": "web", "finished_at": timezone.now(),
    }  # fmt: skip
    return Change.objects.create(**(defaults | columns))


def make_request(**columns: Any) -> RequestRecord:
    defaults = {
        "at": timezone.now() - timedelta(seconds=5),
        "request_id": "req-1",
        "deployment": "chat",
        "kind": "chat",
        "outcome": "ok",
        "status": 200,
        "path": "two_step",
        "prompt_tokens": 12,
        "completion_tokens": 5,
        "total_ms": 40.0,
    }
    return RequestRecord.objects.create(**(defaults | columns))


def problem_of(response: HttpResponse, status: int) -> dict[str, Any]:
    """The problem document of a refusal, after a look at its shape."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["type"].startswith("urn:forebay:problem:")
    assert body["status"] == status
    assert body["title"] and body["detail"]
    assert body["problems"], "a refusal names at least one problem"
    for entry in body["problems"]:
        assert entry["code"] and entry["message"] and entry["fix"], entry
    assert body["request_id"]
    return body
