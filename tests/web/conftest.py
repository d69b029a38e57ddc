"""A client for each role, and a small fleet to look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.alerts import services as alerts
from controlplane.alerts.models import Alert, AlertRule
from controlplane.audit import service_accounts
from controlplane.audit.services import Actor
from controlplane.teams import services as teams
from tests import factories

Clients = Callable[[str], Client]


@pytest.fixture
def as_role(db: None) -> Clients:
    """`as_role("operator")` is a signed-in client; "" has an account without a role, None nobody."""

    def make(role: str | None) -> Client:
        client = Client()
        if role is not None:
            client.force_login(factories.make_user(role), backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


@pytest.fixture
def fleet(db: None) -> SimpleNamespace:
    """One heard node of 8 GPUs: a ready pair of one deployment, an idle partition, free GPUs."""
    node = factories.make_node("gpu-1", gpus=8)
    gpus = list(node.gpus.all())
    deployment = factories.make_deployment("chat")
    pair = {"deployment": deployment, "generation": 2}
    prefill = factories.make_ready(factories.make_partition(node, gpus=gpus[:1], role="prefill", **pair))
    decode = factories.make_ready(factories.make_partition(node, gpus=gpus[1:2], role="decode", **pair))
    idle = factories.make_partition(node, gpus=gpus[2:3])
    node.generation = node.observed_generation = 2
    node.save()
    system = Actor.system("test")
    at = timezone.now()
    alert = Alert.objects.create(
        rule="node-silent", severity="critical", subject_type="node", subject_id=node.pk, subject_name="gpu-1",
        node=node.pk, state="firing", text="No report.", since=at, fired_at=at, told_at=at,
    )  # fmt: skip
    silence = alerts.silence(until=at + timedelta(hours=1), reason="known", rule="gpu-hot", actor=system)
    target = alerts.create_target(
        name="hook", kind="webhook", address="http://127.0.0.1:9/s3cret-path", secret="signs", actor=system
    )
    service = service_accounts.create(name="ci", role="operator", actor=system)
    return SimpleNamespace(
        plan=factories.make_scaling_plan(idle, deployment, "decode"),
        service=service,
        team=teams.create_team(name="search", actor=system),
        alert=alert,
        silence=silence,
        target=target,
        rule=AlertRule.objects.get(key="gpu-hot"),
        node=node,
        deployment=deployment,
        model=deployment.model,
        prefill=prefill,
        decode=decode,
        idle=idle,
    )


@pytest.fixture
def pair(fleet: SimpleNamespace) -> SimpleNamespace:
    """Two prefill and two decode engines that serve, and one idle partition."""
    gpus = list(fleet.node.gpus.filter(partition=None).order_by("index"))
    own = {"deployment": fleet.deployment, "generation": 2}
    fleet.prefill2 = factories.make_ready(factories.make_partition(fleet.node, gpus=gpus[:1], role="prefill", **own))
    fleet.decode2 = factories.make_ready(factories.make_partition(fleet.node, gpus=gpus[1:2], role="decode", **own))
    return fleet


def text(answer: object) -> str:
    """What a person reads, tags and runs of blanks left out."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))
