"""An hour on record: a node of two engines on two GPUs each and a free GPU, a team's key and a team's deployment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey, RequestRecord
from controlplane.teams import services as teams
from controlplane.teams.models import Team
from controlplane.telemetry.models import EngineMinute, GpuMinute, Rollup
from tests.api.conftest import make_request
from tests.factories import make_deployment, make_node, make_partition

HOUR = datetime(2026, 11, 5, 14, tzinfo=UTC)
LATER = HOUR + timedelta(hours=2)  # when it is over for good


@dataclass
class Past:
    node: Node
    prefill: Partition
    decode: Partition
    deployment: Deployment
    owner: Team  # of the deployment
    user: Team  # of the key
    key: ApiKey
    hour: datetime = HOUR

    def up(self, partition: Partition, minutes: range = range(60), covered_s: float = 60.0) -> None:
        EngineMinute.objects.bulk_create(
            EngineMinute(
                partition_id=partition.pk, deployment_id=self.deployment.pk, at=self.hour + timedelta(minutes=minute),
                reports=60, covered_s=covered_s,
            )
            for minute in minutes
        )  # fmt: skip

    def gpus_up(self, minutes: range = range(60)) -> None:
        GpuMinute.objects.bulk_create(
            GpuMinute(gpu_id=gpu.pk, at=self.hour + timedelta(minutes=minute), reports=60)
            for gpu in self.node.gpus.all()
            for minute in minutes
        )

    def asked(self, at_s: float, total_s: float, **columns: object) -> RequestRecord:
        """Prefilled for a quarter of its time, then decoded."""
        defaults = {
            "at": self.hour + timedelta(seconds=at_s), "total_ms": total_s * 1e3, "prefill_ms": total_s * 250.0,
            "deployment": self.deployment.name, "api_key": self.key, "path": "two_step",
            "prefill": "alpha/p", "decode": "alpha/d", "prompt_tokens": 1000, "completion_tokens": 100,
        }  # fmt: skip
        return make_request(**(defaults | columns))


@pytest.fixture
def past(db: None, actor: Actor) -> Past:
    return make_past(actor)


def make_past(actor: Actor, hour: datetime = HOUR) -> Past:
    node = make_node("alpha", gpus=1)
    Node.objects.update(created_at=hour - timedelta(minutes=30))
    deployment = make_deployment("chat")
    prefill = make_partition(node, name="p", gpus=2, deployment=deployment, role="prefill")
    decode = make_partition(node, name="d", gpus=2, deployment=deployment, role="decode")
    owner = teams.create_team(name="owners", deployments=["chat"], actor=actor)
    user = teams.create_team(name="users", actor=actor)
    key, _ = gateway.create_key(name="bot", team="users", actor=actor)
    Rollup.objects.create(width_s=60, upto=hour + timedelta(hours=2))
    return Past(node, prefill, decode, deployment, owner, user, key, hour)
